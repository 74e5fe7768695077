"""Results that are written completely or not at all, even if the disk fails meanwhile."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from namd.config.errors import InputError


@contextmanager
def filled_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to `folder` once all of them are written.

    Files of the same names are replaced; others stay. If anything fails nothing is moved, and
    folders made for it are removed.

    Raises:
        InputError: The disk is full or not writable.
    """
    made: list[Path] = []
    partial = folder / f".partial-{secrets.token_hex(8)}"
    try:
        _make(partial, made)
        yield partial
        for file in sorted(file for file in partial.rglob("*") if file.is_file()):
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        shutil.rmtree(partial)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise InputError(
                f"{folder}: cannot be written ({error.strerror or error}); make room, or name "
                "another place"
            ) from error
        raise


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, noting each one made."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)
