"""Setting the damaged files of a ledger aside, so that the study can be read and continued.

Nothing is deleted: a damaged file is moved under `aside/<date>/`, and a `lost` record takes its
place, since the numbers of an epoch must be consecutive and a fence must stay. Only the holder of
the study's lease may repair it.
"""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from namd.ledger.lease import acquire
from namd.ledger.reading import encode_segment
from namd.ledger.schema import LOST, Event, Identity, Place, study_folder
from namd.ledger.survey import FOLDERS, Damage, survey
from namd.ledger.writing import Writer
from namd.storage.base import Storage, probe
from namd.storage.lease import LeaseTiming

ASIDE = "aside"


def repair(
    storage: Storage,
    study: str,
    *,
    timing: LeaseTiming | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, list[Damage]]:
    """Set every damaged file of a study's ledger aside.

    Returns:
        The folder with the damaged files, inside the study's folder, and the damages.

    Raises:
        StudyBusy: Another live process holds the study's lease.
        InputError: The storage cannot be written, or a record is of a later version.
    """
    probe(storage)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = f"{ASIDE}/{stamp}-{secrets.token_hex(4)}"
    blocked = [damage for damage in survey(storage, study) if damage.file in FOLDERS]
    for damage in blocked:
        # A file in place of a folder: no process can take the lease or write a record.
        storage.move(_place(study, damage.file), _place(study, f"{aside}/{damage.file}"))
    lease = acquire(storage, study, timing=timing, sleep=sleep, damaged_ok=True)
    try:
        damages = survey(storage, study)
        for damage in damages:
            _set_aside(storage, study, damage, aside)
        writer = Writer(storage, study, lease)
    except BaseException:
        lease.stop()
        raise
    # Opening it has fenced earlier holders and read the ledger to its end.
    with writer:
        return aside, blocked + damages


def _set_aside(storage: Storage, study: str, damage: Damage, aside: str) -> None:
    """Move a damaged file away and write its substitute.

    The copy is made first, so that a kill at any point loses nothing.
    """
    name = _place(study, damage.file)
    folder, _, _ = damage.file.partition("/")
    substitute = _substitute(damage, aside) if folder in ("events", "segments") else None
    if damage.present:
        try:
            storage.replace(_place(study, f"{aside}/{damage.file}"), storage.read(name))
        except IsADirectoryError:
            storage.move(name, _place(study, f"{aside}/{damage.file}"))
    if substitute is not None:
        storage.replace(name, substitute)
    else:
        storage.remove(name)


def _substitute(damage: Damage, aside: str) -> bytes:
    """Return the bytes of a record or segment with `lost` records for the lost ones."""
    lost = [_lost(place, damage, aside) for place in damage.places]
    if damage.file.startswith("events/"):
        return lost[0].encode()
    return encode_segment(sorted([*damage.kept, *lost], key=lambda event: event.place))


def _lost(place: Place, damage: Damage, aside: str) -> Event:
    """Return the substitute of a lost record; its time of 0 changes no view's clock."""
    body = {
        "file": damage.file,
        "problem": damage.problem,
        "aside": f"{aside}/{damage.file}" if damage.present else None,
    }
    identity = Identity(None, 0, f"{LOST}/{place.epoch}-{place.seq}")
    return Event(place, identity, 0.0, "repair", body)


def _place(study: str, file: str) -> str:
    return f"{study_folder(study)}/{file}"
