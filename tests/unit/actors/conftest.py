"""A migrated database to copy."""

from pathlib import Path

import pytest

from tests.helpers.histories import Database


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first database is migrated."""
    return tmp_path_factory.mktemp("migrated") / "tables.db"


@pytest.fixture
def database(tmp_path: Path, template: Path) -> Database:
    """An empty one."""
    return Database(tmp_path, template)
