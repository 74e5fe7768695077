"""How many numbers an artifact's tensors hold, from the headers of its files. Needs no torch."""

from math import prod
from pathlib import Path

from safetensors import safe_open

from namd.storage.artifacts import PAYLOAD, attempt_folder, read_commit
from namd.storage.base import Storage

SUFFIX = ".safetensors"
FETCHED_UP_TO = 256 * 2**20
"""Bytes of weights that counting may copy from a remote store, an artifact each."""


def stored_numbers(storage: Storage, stage: str, key: str) -> int | None:
    """Return how many numbers the tensors of an artifact's payload hold; None if it is not there.

    Buffers such as the statistics of batch norms count too.
    """
    commit = read_commit(storage, stage, key)
    if commit is None:
        return None
    places = [n for n in commit.files if n.startswith(f"{PAYLOAD}/") and n.endswith(SUFFIX)]
    size = sum(int(commit.files[place]["size"]) for place in places)
    if size > FETCHED_UP_TO and not Path(storage.root).is_dir():
        return None
    if not places:
        return 0
    folder = storage.fetch(attempt_folder(stage, key, commit.attempt))
    return sum(_numbers(folder / place) for place in places)


def _numbers(path: Path) -> int:
    """Return the numbers in a file of tensors, from its header alone."""
    with safe_open(path, framework="numpy") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    return sum(prod(shape) for shape in shapes)
