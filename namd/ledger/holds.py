"""What the trials of a live study will read, so that nobody clears it away meanwhile.

A hold is written before its trial looks into the store, and it counts as long as the study's
lease is held by a process that may be alive.
"""

import json
from collections.abc import Iterable

from namd.ledger.lease import live_holder
from namd.ledger.reading import study_names
from namd.ledger.schema import study_folder
from namd.ledger.storage import Storage


def hold(storage: Storage, study: str, trial: str, places: Iterable[tuple[str, str]]) -> None:
    """Write down the (stage, key) pairs that a trial needs."""
    text = json.dumps([list(place) for place in places])
    storage.replace(f"{study_folder(study)}/holds/{trial}", text.encode())


def release_holds(storage: Storage, study: str) -> None:
    """Forget the holds of a study: nothing of it runs any more."""
    folder = f"{study_folder(study)}/holds"
    for name in storage.names(folder):
        storage.remove(f"{folder}/{name}")


def held(storage: Storage) -> set[tuple[str, str]]:
    """Return the (stage, key) pairs that live studies hold."""
    found: set[tuple[str, str]] = set()
    for study in study_names(storage):
        if live_holder(storage, study) is None:
            continue
        folder = f"{study_folder(study)}/holds"
        for name in storage.names(folder):
            try:
                places = json.loads(storage.read(f"{folder}/{name}"))
            except FileNotFoundError:
                continue  # released between the listing and the look
            found |= {(stage, key) for stage, key in places}
    return found
