"""Makes the toy method of tests/pipeline importable here."""

import os
import sys
from pathlib import Path

import pytest

TOYS = str(Path(__file__).resolve().parents[1] / "pipeline")
if TOYS not in sys.path:
    sys.path.insert(0, TOYS)


@pytest.fixture
def toy_store(tmp_path, monkeypatch):
    """A store with one toy run of two draws, and the result."""
    from toy_run import TIMING, toy_run

    from namd.pipeline.store import open_store

    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    store = open_store(str(tmp_path / "store"), TIMING)
    return store, toy_run(store, "evaluate.num_draws=2")
