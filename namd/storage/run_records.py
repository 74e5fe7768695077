"""The records of runs, `runs/<key>/run.json`: how they are written, checked and read."""

import json
from collections.abc import Mapping
from typing import Any

from namd.config.fingerprint import fingerprint
from namd.storage.base import Storage
from namd.storage.errors import StoreError

RUNS = "runs"
RECORD = "run.json"
_DIGEST = "sha256"


class RunDamaged(StoreError):  # noqa: N818 - says what is the case
    """A record is not what a run writes."""


def run_place(key: str) -> str:
    """Return the place of a run's record in the store."""
    return f"{RUNS}/{key}/{RECORD}"


def encode_run(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record, its own digest included. Raises ValueError for NaN."""
    # As it will be read: the digest must not depend on JSON's conversion of values.
    record = json.loads(json.dumps(content, allow_nan=False))
    record[_DIGEST] = fingerprint(record)
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def parse_run(raw: bytes) -> dict[str, Any]:
    """Return a run's record; older ones have no digest. Raises ValueError."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError("is unreadable") from error
    if not isinstance(record, dict):
        raise ValueError("holds no JSON object")
    digest = record.pop(_DIGEST, None)
    if digest is not None and digest != fingerprint(record):
        raise ValueError("has changed since it was written")
    for name, kind in (("method", str), ("config", dict), ("stages", list)):
        if not isinstance(record.get(name), kind):
            raise ValueError(f"lacks {name}")
    for stage in record["stages"]:
        if not (isinstance(stage, dict) and {"name", "key"} <= stage.keys()):
            raise ValueError("has a stage without name and key")
    return record


def read_run(storage: Storage, key: str) -> dict[str, Any] | None:
    """Return a run's record, or None if there is none. Raises RunDamaged."""
    try:
        return parse_run(storage.read(run_place(key)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, IsADirectoryError) as error:
        problem = str(error) if isinstance(error, ValueError) else "is a folder"
        raise RunDamaged(
            f"store {storage.root}: {run_place(key)} {problem}; `namd store rm {RUNS}/{key[:12]} "
            f"--store {storage.root}` removes it, and the same `namd run` writes it again"
        ) from error
