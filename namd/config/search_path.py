"""The import path: never the current folder by accident, always the same namd.

A user's `profile.py` there would shadow Python's own in torch, another checkout this package.
"""

import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds the package namd of this process."""


def leave_current_folder() -> None:
    """Stop importing from the current folder, unless namd itself was found there.

    `python -m` puts it first; an empty entry of $PYTHONPATH names it too. An entry of $PYTHONPATH
    that names it in full is meant, and stays.
    """
    if not _is_current(str(ROOT)):
        named = [entry for entry in _python_path() if Path(entry).is_absolute()]
        sys.path[:] = [entry for entry in sys.path if entry in named or not _is_current(entry)]


def inherited_python_path() -> str:
    """Return $PYTHONPATH for child processes: absolute, and without the current folder.

    Relative entries are read as seen from the current folder, which children may not share.
    """
    kept = []
    for entry in _python_path():
        if Path(entry).is_absolute():
            kept.append(entry)
        elif not _is_current(entry) or _is_current(str(ROOT)):
            kept.append(str(Path(entry).resolve()))
    return os.pathsep.join(kept)


def import_folders() -> list[str]:
    """Return the folders beyond an interpreter's own that this process imports from.

    They are the running script's, if Python imports from there, and the one that holds namd.
    """
    script = Path(sys.argv[0]).resolve()
    folder = str(script.parent)
    imported = script.is_file() and folder in sys.path
    beside = [folder] if imported and folder != sysconfig.get_path("scripts") else []
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    return list(dict.fromkeys([*beside, *([] if ROOT in installed else [str(ROOT)])]))


def _python_path() -> list[str]:
    value = os.environ.get("PYTHONPATH", "")
    return value.split(os.pathsep) if value else []


def _is_current(entry: str) -> bool:
    """Whether an entry of the search path names the current folder; not if that was removed."""
    try:
        return Path(entry).resolve() == Path.cwd().resolve()
    except OSError:
        return False
