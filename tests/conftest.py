"""Fixtures that every room's tests may ask for."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT crops and tables, or a skip that says what is missing."""
    folder = Path(os.environ.get("NAMD_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "lidc_nodules2d" / "nodules.npz").is_file():
        pytest.skip(f"needs real nodule crops: no lidc_nodules2d/nodules.npz under {folder}")
    return folder
