"""Messages from bytes, whatever the pieces they come in."""

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.h2_frames import message
from wire.framing import (
    GZIP,
    BadFraming,
    Decoder,
    MessageTooLarge,
    Packed,
    frame,
    frame_gzip,
    unpack,
)

LIMIT = 1_000


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.booleans()), max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=40),
)
def test_messages_are_the_same_in_whatever_pieces_they_come(
    sent: list[tuple[bytes, bool]], sizes: list[int]
) -> None:
    wire = b"".join(frame_gzip(body) if zipped else frame(body) for body, zipped in sent)
    decoder, got, at, turn = Decoder(LIMIT, GZIP), [], 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        got += decoder.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
    assert got == [body for body, _ in sent]
    assert decoder.pending == 0


def test_a_message_is_refused_by_its_announced_length_before_its_bytes_come() -> None:
    decoder = Decoder(LIMIT)
    with pytest.raises(MessageTooLarge) as caught:
        decoder.feed(message(b"", length=2**32 - 1))
    assert caught.value.code == 8
    assert "4294967295" in str(caught.value)


def test_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert Decoder(LIMIT).feed(message(b"x" * LIMIT)) == [b"x" * LIMIT]
    with pytest.raises(MessageTooLarge):
        Decoder(LIMIT).feed(message(b"x" * (LIMIT + 1)))


def test_a_small_message_that_hides_a_huge_one_is_unpacked_no_further_than_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    tracemalloc.start()
    with pytest.raises(MessageTooLarge) as caught:
        unpack(bomb, 100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == 8
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("data", "encoding", "code"),
    [
        (message(b"x", flag=2), GZIP, 13),
        (message(b"x", flag=1), "identity", 13),
        (message(b"no gzip", flag=1), GZIP, 13),
        (message(gzip.compress(b"x", mtime=0)[:-4], flag=1), GZIP, 13),
        (message(gzip.compress(b"x", mtime=0) + b"more", flag=1), GZIP, 13),
    ],
)
def test_what_is_no_message_has_a_status(data: bytes, encoding: str, code: int) -> None:
    with pytest.raises(BadFraming) as caught:
        Decoder(LIMIT, encoding).feed(data)
    assert caught.value.code == code


def test_a_lazy_decoder_gives_compressed_messages_as_they_came() -> None:
    """A stream's window may hold thousands of them, each of which unpacks to the limit."""
    packed, plain = Decoder(LIMIT, GZIP, lazy=True).feed(frame_gzip(b"a") + frame(b"b"))
    assert type(packed) is Packed
    assert unpack(packed, LIMIT) == b"a"
    assert (type(plain), plain) == (bytes, b"b")
