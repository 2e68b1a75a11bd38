"""The verb of the event feed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import replace

from stockray_proto.v1 import event_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read, set_field
from stockray._session import Session
from stockray._watch import Watch
from stockray.enums import FactKind
from stockray.events import FactBatch, FeedCursor

WATCH = Method("/stockray.v1.EventService/Watch", wire.WatchResponse.FromString)


class EventCalls(Session):
    """Every decided fact, in order per shard."""

    async def watch_events(
        self,
        cursors: Iterable[FeedCursor] = (),
        *,
        oldest: bool = False,
        kinds: Iterable[FactKind] = (),
        campaign_id: str = "",
        shards: Iterable[int] = (),
    ) -> AsyncIterator[FactBatch]:
        """Yields facts as they are decided, for ever, in batches; some have cursors only.

        A shard without a cursor begins with what is decided from now on, or with the oldest fact
        that is kept. A stream that ends or breaks is opened again where the last batch ended: no
        fact is missed, none comes twice. Raises InvalidRequest with reason CURSOR_TOO_OLD or
        CURSOR_UNKNOWN (`metadata` says the oldest cursor), and Unavailable when no stream could be
        had for `timeout_ms`.
        """
        request = wire.WatchRequest(campaign_id=campaign_id)
        request.start = wire.FEED_START_OLDEST if oldest else wire.FEED_START_NOW
        set_field(request, "kinds", tuple(kinds))
        set_field(request, "shards", tuple(shards))
        places = {cursor.shard: cursor for cursor in cursors}

        def payload() -> bytes:
            del request.cursors[:]
            set_field(request, "cursors", tuple(places.values()))
            return request.SerializeToString()

        opened = self._ready()
        messages = Watch(opened.connections, self._options).messages(WATCH, payload)
        async with aclosing(messages):
            async for message in messages:
                batch = read(FactBatch, message)
                places.update((cursor.shard, cursor) for cursor in batch.cursors)
                yield replace(batch, cursors=tuple(places.values()))
