"""A shop's random day as the stores of a cluster of several shards have it, without any process."""

import random
from contextlib import closing
from pathlib import Path

from actors.core.codec import pack_entry, unpack_entry
from actors.core.order_facts import order_facts
from actors.core.relay_commands import ENTRY_END
from actors.core.relay_records import FACT_TAKEN, FactTaken
from actors.projector import apply_batch, project
from persistence.open import open_journal, open_sink
from server import bootstrap
from server.bootstrap import ShardMap
from server.settings import Settings
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


def marks_of(stock: list[list[bytes]], incarnation: str) -> list[bytes]:
    """The entries of an account shard that took the facts of these, which did nothing."""
    made = []
    for source, entries in enumerate(stock):
        for seq, entry in enumerate(entries, 1):
            content = unpack_entry(entry)
            slots = [slot for slot, _ in order_facts(content.records, content.now_ms)]
            taken = [
                FactTaken(FACT_TAKEN, slot, source, incarnation, seq, index)
                for index, slot in zip((*range(len(slots) - 1), ENTRY_END), slots, strict=False)
            ]
            if taken:
                made.append((content.now_ms, taken))
    made.sort(key=lambda one: one[0])
    return [
        pack_entry(epoch=1, now_ms=now_ms, records=records, balances=()) for now_ms, records in made
    ]


class StoredDay:
    """A cluster's stores after a random day. SQL of each shard is behind by a random part."""

    def __init__(self, settings: Settings, seed: int, *, steps: int = 120) -> None:
        self.settings = settings
        self.shop = busy_day(seed, steps)
        self.map: ShardMap = bootstrap.prepare(settings, lambda _: None)
        stock = split(self.shop.journal, STOCK_SHARDS)
        self.entries = [*stock, marks_of(stock, self.map.incarnation)]
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
