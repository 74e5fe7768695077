"""Makes the toy method importable, also for stage bodies and subprocesses."""

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture
def diary(tmp_path, monkeypatch):
    """Where the toy bodies write what they computed."""
    path = tmp_path / "diary.txt"
    # A killed process loses nothing that it wrote: flushing to the disk matters to power alone.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setenv("TOY_DIARY", str(path))
    return path


@pytest.fixture
def store(tmp_path):
    from toy_run import TIMING

    from namd.pipeline.store import open_store

    return open_store(str(tmp_path / "store"), TIMING)
