"""Requests to a study's driver, through files in the study's folder: from any process, without Ray.

A request names the attempt that it is meant for, so that a late one stops no other attempt.
"""

import json
import time

from namd.ledger.schema import study_folder
from namd.ledger.validation import RecordDamaged, read_json
from namd.storage.base import Storage


def request_stop(storage: Storage, study: str, attempt: int, reason: str) -> bool:
    """Ask the driver of this attempt to stop; False if a request exists already."""
    body = {"reason": reason, "time": time.time()}
    return storage.create(_stop(study, attempt), json.dumps(body).encode() + b"\n")


def stop_requested(storage: Storage, study: str, attempt: int) -> str | None:
    """Return why this attempt must stop, or None.

    A damaged request counts as a request.
    """
    try:
        return parse_request(storage.read(_stop(study, attempt)))
    except FileNotFoundError:
        return None
    except (RecordDamaged, IsADirectoryError):
        return "a request to stop whose reason cannot be read"


def parse_request(data: bytes) -> str:
    """Return the reason of a request. Raises RecordDamaged."""
    request = read_json(data)
    if not isinstance(request, dict) or not isinstance(request.get("reason"), str):
        raise RecordDamaged("holds no reason")
    return request["reason"]


def _stop(study: str, attempt: int) -> str:
    return f"{study_folder(study)}/requests/stop-{attempt}"
