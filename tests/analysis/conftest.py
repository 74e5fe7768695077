"""Makes tests/analysis/made_study.py importable beside the tests."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Nothing here is about power failures."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
