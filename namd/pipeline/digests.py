"""Digests of files that are too large to read twice. What they are for is the graph's matter."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from namd.config.fingerprint import file_digest, fingerprint


class DigestCache:
    """Digests remembered as long as the files behind them keep size, times and inode.

    Args:
        path: JSON file that carries the memory from process to process; None: this process only.
            A file that cannot be read or written costs time, never correctness.
        learns: Whether new digests are written to the file.
    """

    def __init__(self, path: Path | None = None, *, learns: bool = True) -> None:
        self.path = path
        self._learns = learns
        self._known: dict[str, Any] = _read(path) if path is not None else {}

    def get(self, name: str, files: Iterable[Path], compute: Callable[[], str]) -> str:
        """Return the digest called `name`, computed again where one of the files changed."""
        state = [[str(path), *_state(path)] for path in files]
        known = self._known.get(name)
        if known is not None and known["state"] == state:
            return str(known["digest"])
        digest = compute()
        self._known[name] = {"state": state, "digest": digest}
        if self.path is not None and self._learns:
            _write(self.path, self._known)
        return digest

    def weights(self, path: Path) -> str:
        """Return the digest of a file, or of a folder's files with their relative names.

        Hidden files and folders do not count: downloaders leave locks and indices there.
        """
        if path.is_file():
            return self.get(f"file:{path}", [path], lambda: file_digest(path))
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        return fingerprint(
            {file.relative_to(path).as_posix(): self.weights(file.resolve()) for file in files}
        )


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(path)
    except OSError:
        # A read-only file system refuses this as well.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
