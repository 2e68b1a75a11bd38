"""The fronts that can serve: as the settings name them, so that a new one is tested at once."""

from typing import get_args

from server.settings import Settings

FRONTS: tuple[str, ...] = get_args(Settings.model_fields["front"].annotation)
