"""Where the cluster files lie."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster_folder() -> Path:
    return REPOSITORY / "cluster"


@pytest.fixture(scope="session")
def locked_ray() -> str:
    """The Ray version that requirements.lock pins."""
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("ray==")]
    return line.removeprefix("ray==").split()[0]
