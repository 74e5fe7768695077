"""Makes the toy method of tests/pipeline and the toy studies beside it importable here."""

import os
import sys
from pathlib import Path

import pytest

for folder in (Path(__file__).resolve().parents[1] / "pipeline", Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def toy_store(tmp_path, monkeypatch):
    """A store with one toy run of two draws, and the result."""
    from toy_run import TIMING, toy_run

    from namd.pipeline.store import open_store

    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    store = open_store(str(tmp_path / "store"), TIMING)
    return store, toy_run(store, "evaluate.num_draws=2")


@pytest.fixture
def studies(tmp_path, monkeypatch):
    """An empty store for ledgers, at the speed of memory; the current folder is another."""
    from namd.pipeline.store import open_store

    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.delenv("NAMD_STORE", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    open_store(str(tmp_path / "store"))
    return tmp_path / "store"
