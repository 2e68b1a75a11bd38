"""Settings: flags > environment > file > defaults, and every error names its key."""

from pathlib import Path
from typing import Any

import pytest

from server.settings import Settings, SettingsError, load


def test_without_anything_the_defaults_hold(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    settings, origin = load({}, environment={})
    assert settings.shards is None
    assert settings.data_dir == tmp_path / "stockray-data"
    assert settings.embedded_journal
    assert settings.embedded_database
    assert set(origin.values()) == {"default"}
    assert set(origin) == set(Settings.model_fields)


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "stockray.toml"
    file.write_text("shards = 2\ngateways = 2\nnamespace = 'from-file'\n")
    environment = {"STOCKRAY_SHARDS": "3", "STOCKRAY_GATEWAYS": "3", "HOME": "/root"}
    settings, origin = load({"shards": 4, "gateways": None}, environment=environment, file=file)
    assert (settings.shards, settings.gateways, settings.namespace) == (4, 3, "from-file")
    assert origin["shards"] == "flag"
    assert origin["gateways"] == "environment"
    assert origin["namespace"] == str(file)
    assert origin["listen"] == "default"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shards", "0"),
        ("shards", "257"),
        ("shards", "many"),
        ("gateways", "0"),
        ("listen", "7443"),
        ("listen", ":7443"),
        ("listen", "host:port"),
        ("listen", "host:65536"),
        ("front", "other"),
        ("reflection", "perhaps"),
        ("expiry_grace_ms", "-1"),
        ("expiry_grace_ms", "600001"),
        ("snapshot_every_ms", "1"),
        ("snapshot_entries", "1"),
        ("journal_bytes_max", "1"),
        ("recall_after_ms", "59999"),
        ("no_such_key", "1"),
    ],
)
def test_every_error_names_its_key_and_where_it_came_from(
    key: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=rf"^{key} \(environment\): "):
        load({}, environment={f"STOCKRAY_{key.upper()}": value})
    with pytest.raises(SettingsError, match=rf"^{key} \(flag\): "):
        load({key: value}, environment={})
    file = tmp_path / "stockray.toml"
    file.write_text(f"{key} = '{value}'\n")
    with pytest.raises(SettingsError, match=rf"^{key} \({file}\): "):
        load({}, environment={}, file=file)


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"known are .*data_dir.*shards"):
        load({}, environment={"STOCKRAY_SHARD": "2"})


def test_a_table_in_the_file_is_an_unknown_key(tmp_path: Path) -> None:
    file = tmp_path / "stockray.toml"
    file.write_text("[server]\nshards = 2\n")
    with pytest.raises(SettingsError, match=r"^server "):
        load({}, environment={}, file=file)


@pytest.mark.parametrize("content", [b"shards = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "stockray.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=str(file)):
        load({}, environment={}, file=file)


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(SettingsError, match="no such file"):
        load({}, environment={}, file=missing)
    with pytest.raises(SettingsError, match="no such file"):
        load({}, environment={"STOCKRAY_CONFIG": str(missing)})


def test_secrets_can_be_given_as_files(tmp_path: Path) -> None:
    secret = tmp_path / "journal"
    secret.write_text("redis://u:p@host:6379/0\n")
    settings, origin = load({}, environment={"STOCKRAY_JOURNAL_FILE": str(secret)})
    assert settings.journal_url == settings.snapshots_url == "redis://u:p@host:6379/0"
    assert origin["journal"] == "environment"


def test_a_secret_that_is_given_twice_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    name = "STOCKRAY_DATABASE_FILE"
    with pytest.raises(SettingsError, match=name):
        load({}, environment={name: str(tmp_path / "none")})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=name):
        load({}, environment={name: str(binary)})
    binary.write_text("mysql+pymysql://h/d")
    with pytest.raises(SettingsError, match="STOCKRAY_DATABASE is given as well"):
        load({}, environment={name: str(binary), "STOCKRAY_DATABASE": "x"})


def test_no_other_key_can_be_given_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="listen_file"):
        load({}, environment={"STOCKRAY_LISTEN_FILE": str(tmp_path)})


def test_variables_of_the_client_mean_nothing_here() -> None:
    environment = {"STOCKRAY_ADDRESS": "x", "STOCKRAY_TOKEN": "y"}
    assert load({}, environment=environment).settings == load({}, environment={}).settings


def test_every_path_is_absolute(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({"data_dir": "here"}, environment={}).settings
    assert settings.data_dir == tmp_path / "here"
    assert settings.journal_url == f"sqlite:{tmp_path}/here/journal"
    assert settings.snapshots_url == f"file:{tmp_path}/here/snapshots"
    assert settings.database_url == f"sqlite:///{tmp_path}/here/tables.db"
    assert settings.log_directory == tmp_path / "here" / "logs"
