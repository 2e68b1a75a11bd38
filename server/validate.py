"""What requests must be, and how it is said when they are not.

Rules
-----
* A call about one thing lists all its violations at once, as INVALID_ARGUMENT with BadRequest.
* Of many lines, each that breaks a rule is answered INVALID by itself; the others go on.
* An id is 1-128 characters, all printable, none a space (`str.isprintable` counts the ASCII space
  alone of all white space as printable).
* The hot calls test a whole line in one expression (`translate/reserve.py`, `translate/payment.py`)
  and come here only to find out what is wrong with it.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.errors import Violation, refuse_fields

ID_LENGTH_MAX = 128
LINE_UNITS_MAX = 1_000_000
DOCUMENT_UNITS_MAX = 1_000_000_000
MONEY_MAX_MINOR = 10**15
CLAIMS_MAX = 32
REASON_LENGTH_MAX = 512
TITLE_LENGTH_MAX = 256
REFERENCE_LENGTH_MAX = 128
IP_LENGTH_MAX = 45
MESSAGE_LENGTH_MAX = 256
PAGE_TOKEN_LENGTH_MAX = 2_048
PAYMENT_WINDOW_MAX_MS = 24 * 3_600_000
TIME_MAX_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last instant that a Timestamp can name."""

_ID_RULE = "1-128 printable characters without spaces"


def is_id(text: str) -> bool:
    """Whether `text` is an id by the package's rule."""
    return 0 < len(text) <= ID_LENGTH_MAX and text.isprintable() and " " not in text


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address in text form."""
    if len(text) > IP_LENGTH_MAX:
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def stamp_ms(stamp: Timestamp) -> int:
    """Milliseconds since 1970, rounded down."""
    return stamp.seconds * 1_000 + stamp.nanos // 1_000_000


def duration_ms(duration: Duration) -> int:
    """Milliseconds, rounded down."""
    return duration.seconds * 1_000 + duration.nanos // 1_000_000


class Violations:
    """Collects what is wrong with one request, or with one line of many.

    `prefix` is the path to the message that is looked at, for example "line."."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.found: list[Violation] = []

    def add(self, field: str, allowed: str) -> None:
        """`field` breaks its rule; `allowed` says what it may be."""
        self.found.append(Violation(self.prefix + field, allowed))

    def id(self, field: str, value: str) -> None:
        """A required id."""
        if not value:
            self.add(field, f"required: {_ID_RULE}")
        elif not is_id(value):
            self.add(field, _ID_RULE)

    def optional_id(self, field: str, value: str) -> None:
        """An id, or empty."""
        if value and not is_id(value):
            self.add(field, f"empty, or {_ID_RULE}")

    def ids(self, field: str, values: Iterable[str], *, count_max: int) -> None:
        """A bounded list of ids."""
        held = list(values)
        if len(held) > count_max:
            self.add(field, f"at most {count_max} of them")
        for index, value in enumerate(held[:count_max]):
            self.id(f"{field}[{index}]", value)

    def number(self, field: str, value: int, low: int, high: int) -> None:
        """`low` to `high`, both included."""
        if not low <= value <= high:
            self.add(field, f"{low} to {high}")

    def money(self, field: str, value: int) -> None:
        """Minor units: 0 to 10^15."""
        self.number(field, value, 0, MONEY_MAX_MINOR)

    def text(self, field: str, value: str, length_max: int, *, required: bool = False) -> None:
        """Text for people."""
        if required and not value:
            self.add(field, f"required: 1-{length_max} characters")
        elif len(value) > length_max:
            self.add(field, f"at most {length_max} characters")

    def reason(self, value: str, *, required: bool = False) -> None:
        """The field `reason` that most acts have."""
        self.text("reason", value, REASON_LENGTH_MAX, required=required)

    def ip(self, field: str, value: str) -> None:
        """An address, or empty."""
        if value and not is_ip(value):
            self.add(field, "empty, or an IPv4 or IPv6 address in text form")

    def currency(self, field: str, value: str, *, required: bool) -> None:
        """ISO 4217: three capital letters; may be empty when nothing has a price."""
        if not value and required:
            self.add(field, "required with a price: three capital letters (ISO 4217)")
        elif value and not (len(value) == 3 and value.isascii() and value.isupper()):
            self.add(field, "three capital letters (ISO 4217)")

    def instant(self, field: str, stamp: Timestamp) -> int:
        """A Timestamp from 1970 to 9999; answers its milliseconds."""
        at_ms = stamp_ms(stamp)
        if not (0 <= at_ms <= TIME_MAX_MS and 0 <= stamp.nanos < 1_000_000_000):
            self.add(field, "an instant from 1970 to 9999, with nanos 0 to 999,999,999")
        return at_ms

    def duration(self, field: str, value: Duration, low_ms: int, high_ms: int) -> int:
        """A Duration in a range; answers its milliseconds."""
        length_ms = duration_ms(value)
        sane = value.seconds >= 0 and 0 <= value.nanos < 1_000_000_000
        if not (sane and low_ms <= length_ms <= high_ms):
            self.add(field, f"{low_ms} ms to {high_ms} ms")
        return length_ms

    def known(self, field: str, value: int, names: Callable[[Any], str]) -> None:
        """A number that this release's enum has."""
        try:
            names(value)
        except ValueError:
            self.add(field, "a value that this release knows")

    def page(self, *, page_size: int, page_token: str) -> None:
        """The two fields of every list."""
        if page_size < 0:
            self.add("page_size", "0 or more")
        if len(page_token) > PAGE_TOKEN_LENGTH_MAX:
            self.add("page_token", "the last answer's next_page_token, or empty")

    def refuse(self) -> None:
        """Raise CallError with all that was found, if anything was."""
        if self.found:
            refuse_fields(self.found)

    def message(self) -> str:
        """All that was found, for the `message` of a line; '' if nothing was."""
        return "; ".join(f"{field}: {allowed}" for field, allowed in self.found)[
            :MESSAGE_LENGTH_MAX
        ]
