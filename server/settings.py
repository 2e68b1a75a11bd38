"""Settings of the service, read once: flags > `STOCKRAY_*` > `stockray.toml` > defaults.

The only place that looks at the environment. Unknown keys are errors, every path is made absolute,
and `journal` and `database`, which may hold passwords, can be given as files
(`STOCKRAY_JOURNAL_FILE`, `STOCKRAY_DATABASE_FILE`).
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from actors.specs import Rounds

PREFIX = "STOCKRAY_"
FILE_NAME = "stockray.toml"
SECRETS = ("journal", "database")
OTHER_VARIABLES = frozenset({"STOCKRAY_ADDRESS", "STOCKRAY_TOKEN", "STOCKRAY_CONFIG"})
"""Variables of the client's commands, which mean nothing to the service."""


class SettingsError(Exception):
    """A setting is unknown or has no allowed value. Names the key, where it came from, and why."""


class Settings(BaseModel):
    """One value for each key of `stockray.toml`; flags have the same names with dashes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    data_dir: Path = Field(
        default=Path("stockray-data"),
        description="Directory of everything that the embedded mode keeps, and of logs.",
    )
    journal: str = Field(
        default="",
        description="redis://host:port/0 for the cluster; empty: SQLite files in data_dir.",
    )
    database: str = Field(
        default="",
        description="mysql+pymysql://user:password@host/db; empty: SQLite in data_dir.",
    )
    ray_address: str = Field(
        default="local",
        description="Ray to join; 'local' starts one that ends with this process.",
    )
    namespace: str = Field(default="stockray", description="Ray namespace of the processes.")
    shards: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Stock shards of a new cluster (default 2); an existing one keeps its own.",
    )
    account_shards: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Account shards beside them (default 1); an existing cluster keeps its own.",
    )
    gateways: int = Field(default=1, ge=1, le=64, description="Gateway processes on the port.")
    listen: str = Field(
        default="127.0.0.1:7443", description="host:port of the gRPC service; port 0 picks one."
    )
    front: Literal["nghttp2", "grpcio"] = Field(
        default="nghttp2", description="Which gRPC server implementation."
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file of the gateways' certificate chain; none: no TLS."
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the key to it.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of who vouches for callers; then each needs a certificate.",
    )
    connections_max: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Open connections of one gateway (nghttp2)."
    )
    connection_idle_ms: int = Field(
        default=3_600_000,
        ge=0,
        description="A connection without calls for this long is closed; 0: never (milliseconds).",
    )
    connection_age_ms: int = Field(
        default=0,
        ge=0,
        description="A connection open for this long is drained; 0: never (milliseconds).",
    )
    rounds: Rounds = Field(
        default=Rounds.ROAD,
        description="Gateway to shard: road (Unix socket, TCP to other machines), tcp or ray.",
    )
    reflection: bool = Field(default=True, description="Serve gRPC reflection and channelz.")
    risk_profile: Literal["default", "strict", "off"] = Field(
        default="default",
        description="Rates per buyer, address and device; off: none (freezes hold all the same).",
    )
    accept_journal: bool = Field(
        default=False,
        description="Start although the journal ends before the database's position.",
    )
    expiry_grace_ms: int = Field(
        default=60_000,
        ge=0,
        le=600_000,
        description="After a failover nothing expires for this long (milliseconds).",
    )
    snapshot_every_ms: int = Field(
        default=300_000, ge=1_000, description="A snapshot at least this often (milliseconds)."
    )
    snapshot_entries: int = Field(
        default=20_000, ge=1_000, description="... or after this many journal entries."
    )
    journal_bytes_max: int = Field(
        default=4_000_000_000,
        ge=1_000_000,
        description="Journal size, per shard, above which changes wait (bytes).",
    )
    recall_after_ms: int = Field(
        default=86_400_000,
        ge=60_000,
        description="A finished reservation untouched for this long leaves memory; so do an order "
        "of which all commission was available for so long, and a finished withdrawal "
        "(milliseconds).",
    )

    facts_keep_ms: int = Field(
        default=604_800_000,
        ge=60_000,
        description="The event feed goes back this far beyond the journal (milliseconds).",
    )

    @field_validator("data_dir", "tls_certificate", "tls_key", "tls_client_ca")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port with a port from 0 to 65535")
        return value

    @property
    def embedded_journal(self) -> bool:
        """Whether the journal is SQLite files in `data_dir`."""
        return not self.journal

    @property
    def embedded_database(self) -> bool:
        """Whether the SQL view is a SQLite file in `data_dir`."""
        return not self.database

    @property
    def journal_url(self) -> str:
        """As `persistence.open` takes it."""
        return self.journal or f"sqlite:{self.data_dir}/journal"

    @property
    def snapshots_url(self) -> str:
        """Snapshots stand where the journal stands."""
        return self.journal or f"file:{self.data_dir}/snapshots"

    @property
    def database_url(self) -> str:
        """As SQLAlchemy takes it."""
        return self.database or f"sqlite:///{self.data_dir}/tables.db"

    @property
    def log_directory(self) -> Path:
        """One file for each process."""
        return self.data_dir / "logs"


class Origins(NamedTuple):
    """Settings, and for each key where its value came from."""

    settings: Settings
    origin: Mapping[str, str]


def load(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Origins:
    """Settings from all places. A flag that is None was not given. SettingsError."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origin: dict[str, str] = dict.fromkeys(Settings.model_fields, "default")
    path = file or Path(environment.get("STOCKRAY_CONFIG", FILE_NAME))
    named = file is not None or "STOCKRAY_CONFIG" in environment
    for source, found in (
        (str(path), _from_file(path, required=named)),
        ("environment", _from_environment(environment)),
        ("flag", {key: value for key, value in flags.items() if value is not None}),
    ):
        for key, value in found.items():
            if key not in Settings.model_fields:
                known = ", ".join(sorted(Settings.model_fields))
                raise SettingsError(f"{key} ({source}): no such setting; known are {known}")
            values[key] = value
            origin[key] = source
    try:
        return Origins(Settings(**values), origin)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "settings"
        raise SettingsError(f"{key} ({origin.get(key, '?')}): {first['msg']}") from error


def _from_file(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.exists():
        if required:
            raise SettingsError(f"{path}: no such file")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        key = name.removeprefix(PREFIX).lower()
        if key.endswith("_file") and key.removesuffix("_file") in SECRETS:
            if name.removesuffix("_FILE") in environment:
                raise SettingsError(f"{name}: {name.removesuffix('_FILE')} is given as well")
            try:
                found[key.removesuffix("_file")] = Path(value).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{name}: cannot be read: {error}") from error
        else:
            found[key] = value
    return found
