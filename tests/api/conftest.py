"""Makes the studies of tests/analysis and tests/study importable here, at the speed of memory."""

import os
import sys
from pathlib import Path

import pytest

for folder in ("analysis", "study"):
    place = str(Path(__file__).resolve().parents[1] / folder)
    if place not in sys.path:
        sys.path.insert(0, place)


@pytest.fixture(scope="module")
def quick_disk():
    """Nothing here is about power failures."""
    before, os.fsync = os.fsync, lambda _descriptor: None
    yield
    os.fsync = before


@pytest.fixture(autouse=True)
def no_store_of_the_environment(monkeypatch):
    monkeypatch.delenv("NAMD_STORE", raising=False)
