"""Assertions of the modules beside the tests say their values, as those of tests do."""

import pytest

pytest.register_assert_rewrite("tests.interop.sale", "tests.interop.serving")
