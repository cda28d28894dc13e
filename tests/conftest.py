"""Hypothesis profiles, and where the fixture repositories are when they are there."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=300, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=20_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what mounts real file systems a marker, so that it can be left out."""
    for item in items:
        if "kernel" in item.nodeid.split("/")[1:2]:
            item.add_marker(pytest.mark.kernel)
