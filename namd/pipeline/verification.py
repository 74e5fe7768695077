"""Whether the files of an artifact are the ones that were published: sizes and SHA-256.

A process reads a file for its digest once: the digest is remembered as long as inode, size and
times stay. What to do about a damaged artifact is decided by the store.
"""

import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from namd.config.fingerprint import file_digest

FRESH_NS = 20_000_000
"""A file that changed within this time may change again at the same time stamp.

Linux stamps files by the kernel's tick (at most 10 ms), so such a digest is not remembered.
"""

_State = tuple[int, int, int, int, int]
_digests: dict[str, tuple[_State, str]] = {}


def first_problem(
    folder: Path, files: Mapping[str, Mapping[str, Any]], *, digests: bool = True
) -> str | None:
    """Return what is wrong with the first damaged file of an artifact, or None.

    Args:
        folder: The artifact's folder.
        files: `sha256` and `size` by place in the folder.
        digests: Whether to read the files; else only their sizes are looked at.
    """
    for place, entry in files.items():
        path = folder / place
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry["size"]:
                return f"{place} is missing or cut short"
            if digests and known_digest(path, status) != entry["sha256"]:
                return f"{place} has changed"
        except (FileNotFoundError, NotADirectoryError):
            return f"{place} is missing or cut short"
        except OSError as error:
            return f"{place} cannot be read: {error.strerror or error}"
    return None


def known_digest(path: Path, status: os.stat_result | None = None) -> str:
    """Return a file's SHA-256, read again only if its inode, size or times have changed."""
    status = status or path.stat()
    state = _state(status)
    known = _digests.get(str(path))
    if known is not None and known[0] == state:
        return known[1]
    now = time.time_ns()
    digest = file_digest(path)
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if abs(now - changed) > FRESH_NS and _state(path.stat()) == state:
        _digests[str(path)] = (state, digest)
    return digest


def _state(status: os.stat_result) -> _State:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
