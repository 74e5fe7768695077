"""Pins: the artifacts that the trials of a live study will read, so that `store gc` keeps them.

A pin is written before its trial looks into the store, and it counts as long as the study's
lease is held by a process that may be alive.
"""

import json
from collections.abc import Iterable

from namd.ledger.damage import damaged
from namd.ledger.lease import live_holder
from namd.ledger.reading import study_names
from namd.ledger.schema import study_folder
from namd.ledger.validation import RecordDamaged, read_json
from namd.storage.base import Storage

PIN_FOLDERS = ("pins", "holds")
"""A study that an earlier version runs writes to the second."""


def pin(storage: Storage, study: str, trial: str, places: Iterable[tuple[str, str]]) -> None:
    """Record the (stage, key) pairs that a trial needs."""
    text = json.dumps([list(place) for place in places])
    storage.replace(f"{study_folder(study)}/pins/{trial}", text.encode())


def release_pins(storage: Storage, study: str) -> None:
    """Remove the pins of a study that no longer runs."""
    for folder in PIN_FOLDERS:
        for name in storage.names(f"{study_folder(study)}/{folder}"):
            storage.remove(f"{study_folder(study)}/{folder}/{name}")


def pinned(storage: Storage) -> set[tuple[str, str]]:
    """Return the (stage, key) pairs that live studies pin. Raises LedgerDamaged."""
    found: set[tuple[str, str]] = set()
    for study in study_names(storage):
        if live_holder(storage, study) is None:
            continue
        for folder in PIN_FOLDERS:
            found |= _pinned_in(storage, study, folder)
    return found


def _pinned_in(storage: Storage, study: str, folder: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for name in storage.names(f"{study_folder(study)}/{folder}"):
        try:
            found |= parse_pin(storage.read(f"{study_folder(study)}/{folder}/{name}"))
        except FileNotFoundError:
            continue  # released between the listing and the look
        except (RecordDamaged, IsADirectoryError) as error:
            problem = "is a folder" if isinstance(error, OSError) else str(error)
            raise damaged(storage, study, f"{folder}/{name}", problem) from error
    return found


def parse_pin(data: bytes) -> set[tuple[str, str]]:
    """Return the (stage, key) pairs of one pin. Raises RecordDamaged."""
    places = read_json(data)
    if not (isinstance(places, list) and all(map(_is_pair, places))):
        raise RecordDamaged("holds no list of stages and keys")
    return {(stage, key) for stage, key in places}


def _is_pair(place: object) -> bool:
    return isinstance(place, list) and [type(word) for word in place] == [str, str]
