"""What the trials of a live study will read, so that nobody clears it away meanwhile.

A hold is written before its trial looks into the store, and it counts as long as the study's
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


def pin(storage: Storage, study: str, trial: str, places: Iterable[tuple[str, str]]) -> None:
    """Write down the (stage, key) pairs that a trial needs."""
    text = json.dumps([list(place) for place in places])
    storage.replace(f"{study_folder(study)}/pins/{trial}", text.encode())


def release_pins(storage: Storage, study: str) -> None:
    """Forget the holds of a study: nothing of it runs any more."""
    folder = f"{study_folder(study)}/pins"
    for name in storage.names(folder):
        storage.remove(f"{folder}/{name}")


def pinned(storage: Storage) -> set[tuple[str, str]]:
    """Return the (stage, key) pairs that live studies hold. Raises LedgerDamaged."""
    found: set[tuple[str, str]] = set()
    for study in study_names(storage):
        if live_holder(storage, study) is None:
            continue
        folder = f"{study_folder(study)}/pins"
        for name in storage.names(folder):
            try:
                found |= parse_pin(storage.read(f"{folder}/{name}"))
            except FileNotFoundError:
                continue  # released between the listing and the look
            except (RecordDamaged, IsADirectoryError) as error:
                problem = "is a folder" if isinstance(error, OSError) else str(error)
                raise damaged(storage, study, f"pins/{name}", problem) from error
    return found


def parse_pin(data: bytes) -> set[tuple[str, str]]:
    """Return the (stage, key) pairs of one hold. Raises RecordDamaged."""
    places = read_json(data)
    if not (isinstance(places, list) and all(map(_is_pair, places))):
        raise RecordDamaged("holds no list of stages and keys")
    return {(stage, key) for stage, key in places}


def _is_pair(place: object) -> bool:
    return isinstance(place, list) and [type(word) for word in place] == [str, str]
