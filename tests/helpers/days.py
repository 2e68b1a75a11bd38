"""A shop's random day as the stores of a cluster of several shards have it, without any process."""

import random
from contextlib import closing
from pathlib import Path

from actors.core.codec import pack_entry, unpack_entry
from actors.projector import apply_batch, project
from persistence.open import open_journal, open_sink
from server import bootstrap
from server.bootstrap import ShardMap
from server.settings import Settings
from tests.helpers.account_acts import accounts_of
from tests.helpers.histories import busy_day

STOCK_SHARDS = 2
SHARDS = STOCK_SHARDS + 1
"""The last one is of accounts."""


def split(entries: list[bytes], shards: int) -> list[list[bytes]]:
    """One shard's entries as several shards would have decided them: slots share nothing."""
    found: list[list[bytes]] = [[] for _ in range(shards)]
    for entry in entries:
        content = unpack_entry(entry)
        for shard in range(shards):
            records = [r for r in content.records if r.slot % shards == shard]
            balances = [b for b in content.balances if b.slot % shards == shard]
            if records:
                made = pack_entry(
                    epoch=1, now_ms=content.now_ms, records=records, balances=balances
                )
                found[shard].append(made)
    return found


def settings_in(directory: Path, **changes: object) -> Settings:
    """An embedded cluster of a few shards, or one on servers."""
    return Settings.model_validate(
        {"data_dir": directory / "data", "shards": STOCK_SHARDS, **changes}
    )


class StoredDay:
    """A cluster's stores after a random day. SQL of each shard is behind by a random part."""

    def __init__(self, settings: Settings, seed: int, *, steps: int = 120) -> None:
        self.settings = settings
        self.shop = busy_day(seed, steps)
        self.map: ShardMap = bootstrap.prepare(settings, lambda _: None)
        stock = split(self.shop.journal, STOCK_SHARDS)
        self.entries = [*stock, accounts_of(stock, seed, self.map.incarnation)]
        with closing(open_journal(settings.journal_url)) as journal:
            for shard, entries in enumerate(self.entries):
                fields = {"incarnation": self.map.incarnation}
                journal.acquire(shard, **fields, seen_epoch=0, token="t")
                for seq, entry in enumerate(entries, 1):
                    journal.append(
                        shard, **fields, epoch=1, seq=seq, batch_id=f"t:{seq}", entry=entry
                    )

    def project(self, seqs: list[int]) -> None:
        """SQL gets each shard's entries up to these; of shards that are not named, none."""
        with closing(open_sink(self.settings.database_url)) as sink:
            for shard, (entries, seq) in enumerate(zip(self.entries, seqs, strict=False)):
                if not seq:
                    continue
                with closing(open_journal(self.settings.journal_url)) as journal:
                    read = journal.read(shard, after_seq=0, max_bytes=10**9)
                assert len(read) == len(entries)
                apply_batch(sink, shard, self.map.incarnation, 0, project(shard, read[:seq]))

    def project_part(self, chance: random.Random, *, lag: int = 25) -> list[int]:
        """SQL lags by up to `lag` entries on each shard; answers its positions."""
        seqs = [max(0, len(entries) - chance.randint(0, lag)) for entries in self.entries]
        self.project(seqs)
        return seqs
