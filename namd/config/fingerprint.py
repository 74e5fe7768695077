"""Stable digests of values and files. What goes into a stage key is decided elsewhere."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, floats by repr.

    Raises TypeError for a value that JSON cannot represent and ValueError for NaN or infinity.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: object) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON is dynamically typed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a fingerprint needs finite numbers, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"no canonical JSON for {type(value).__name__}")
