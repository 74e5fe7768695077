"""Substitutes for a user's account, for processes without one or without a home."""

import atexit
import getpass
import os
import shutil
import tempfile
from pathlib import Path

_CACHES = ("MPLCONFIGDIR", "WANDB_CACHE_DIR")
"""For libraries that find another folder themselves, but report it on stderr each time."""


def complete_account() -> None:
    """Give this process and its children a user name, a home and a cache folder if they lack one.

    In a container a user may have no entry in passwd, where libraries look when $HOME or $USER
    are unset; a home may be missing or read-only.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        home = _temporary_home()
        os.environ["HOME"] = str(home)
    missing = [name for name in _CACHES if name not in os.environ]
    if missing and not _is_writable(home):
        folder = str(_temporary_home())
        os.environ.update(dict.fromkeys(missing, folder))


def _is_writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _temporary_home() -> Path:
    """Return a new folder of mode 0700, removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="namd-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
