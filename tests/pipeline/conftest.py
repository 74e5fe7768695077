"""Makes the toy method importable, also for stage bodies and subprocesses."""

import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from toy_fixtures import diary  # noqa: E402 - found by the path above

__all__ = ["diary"]


@pytest.fixture
def store(tmp_path):
    from toy_run import TIMING

    from namd.pipeline.store import open_store

    return open_store(str(tmp_path / "store"), TIMING)
