"""What gRPC says in headers, and what is no header of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.headers import (
    BadHeader,
    accepts_gzip,
    decode_message,
    encode_message,
    encode_metadata,
    format_timeout,
    is_grpc,
    metadata_value,
    parse_timeout,
    status_trailers,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3_600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"40m", 0.04),
        (b"5u", 5e-6),
        (b"99999999n", 0.099999999),
        (b"0m", 0.0),
    ],
)
def test_a_timeout_is_read_in_each_unit(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [b"", b"S", b"1", b"-1S", b"+1S", b"1.5S", b"100000000S", b"1s", b" 1S", b"1_0S", b"\xb2S"],
)
def test_what_is_no_timeout_names_the_header(value: bytes) -> None:
    with pytest.raises(BadHeader, match="grpc-timeout"):
        parse_timeout(value)


@given(st.integers(-10, 10**13))
def test_a_timeout_that_is_sent_can_be_read(timeout_ms: int) -> None:
    sent = format_timeout(timeout_ms)
    assert len(sent) <= 9
    asked_s = min(max(1, timeout_ms) / 1000, 99_999_999)
    assert parse_timeout(sent) == pytest.approx(asked_s, abs=1)


@given(st.binary(max_size=60))
def test_bytes_travel_in_a_bin_header_and_back(value: bytes) -> None:
    ((key, sent),) = encode_metadata([("some-bin", value)])
    assert key == b"some-bin"
    assert metadata_value("some-bin", sent) == value


@pytest.mark.parametrize("value", [b"YQ==", b"YQ"])
def test_padding_of_a_bin_header_may_be_left_out(value: bytes) -> None:
    assert metadata_value("some-bin", value) == b"a"


def test_a_bin_header_that_is_no_base64_is_named() -> None:
    with pytest.raises(BadHeader, match="some-bin"):
        metadata_value("some-bin", b"not base64!")


@pytest.mark.parametrize(
    ("key", "value"),
    [("Upper", "x"), ("", "x"), ("grpc-status", "0"), ("a b", "x"), ("a", "\n"), ("a", "ü")],
)
def test_metadata_that_the_wire_cannot_carry_is_refused(key: str, value: str) -> None:
    with pytest.raises(BadHeader, match="metadata"):
        encode_metadata([(key, value)])


@given(st.text(max_size=50))
def test_a_status_message_travels_whatever_it_says(text: str) -> None:
    sent = encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in sent)
    assert decode_message(sent) == text.encode("utf-8", "replace").decode()


def test_a_status_message_with_half_a_character_does_not_fail_the_call() -> None:
    assert encode_message("\ud800") == b"?"


@pytest.mark.parametrize("value", [b"100%", b"%zz", b"%f", b"%ff", b"\xff"])
def test_a_badly_encoded_status_message_is_still_read(value: bytes) -> None:
    assert decode_message(value)


def test_a_status_has_its_details_and_its_message() -> None:
    pairs = status_trailers(8, "zu viel: ü", [("grpc-status-details-bin", b"\x08\x08")])
    assert pairs == [
        (b"grpc-status", b"8"),
        (b"grpc-message", b"zu viel: %C3%BC"),
        (b"grpc-status-details-bin", b"CAg"),
    ]


@pytest.mark.parametrize(
    ("value", "grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"APPLICATION/GRPC", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_content_types_of_grpc_are_known(value: bytes, grpc: bool) -> None:
    assert is_grpc(value) is grpc


def test_gzip_is_taken_only_if_it_is_named_whole() -> None:
    assert accepts_gzip(b"identity, deflate,gzip")
    assert not accepts_gzip(b"identity,gzipped")
