"""What others ask of a study's driver, through the study's folder: any process, no Ray.

A request names the attempt that it is meant for, so that one that comes too late stops nobody.
"""

import json
import time

from namd.ledger.schema import study_folder
from namd.ledger.validation import RecordDamaged, read_json
from namd.storage.base import Storage


def request_stop(storage: Storage, study: str, attempt: int, reason: str) -> bool:
    """Ask the driver of this attempt to stop; False if somebody has asked already."""
    body = {"reason": reason, "time": time.time()}
    return storage.create(_stop(study, attempt), json.dumps(body).encode() + b"\n")


def stop_requested(storage: Storage, study: str, attempt: int) -> str | None:
    """Return why this attempt shall stop, or None.

    A damaged request is one: somebody made it.
    """
    try:
        return parse_request(storage.read(_stop(study, attempt)))
    except FileNotFoundError:
        return None
    except (RecordDamaged, IsADirectoryError):
        return "a request to stop whose reason cannot be read"


def parse_request(data: bytes) -> str:
    """Return the reason of a request. Raises RecordDamaged."""
    told = read_json(data)
    if not isinstance(told, dict) or not isinstance(told.get("reason"), str):
        raise RecordDamaged("holds no reason")
    return told["reason"]


def _stop(study: str, attempt: int) -> str:
    return f"{study_folder(study)}/requests/stop-{attempt}"
