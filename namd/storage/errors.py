"""The problem of a store's disk or bucket, in one line with a way out."""

import errno
from pathlib import Path

from namd.config.errors import InputError
from namd.storage.s3 import S3Away

_PROBLEMS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EIO: "input/output error",
}

_SILENT = "does not answer"


class StoreError(InputError):
    """The store cannot be used: disk full, read-only, not a store."""


def storage_problem(error: BaseException | None) -> str | None:
    """Return the problem of the disk or S3, or None if the error has another cause.

    Libraries in Rust or C++ report it only in the message, or as another error's cause.
    """
    while error is not None:
        if isinstance(error, S3Away | StoreError) and _SILENT in str(error):
            return _SILENT
        if isinstance(error, OSError) and error.errno in _PROBLEMS:
            return _PROBLEMS[error.errno]
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return _PROBLEMS[errno.ENOSPC]
        error = error.__cause__ or error.__context__
    return None


def store_error(name: str, error: OSError) -> StoreError | None:
    """Return the line for a storage's error, or None if the error has another cause.

    Args:
        name: Root of the storage.
        error: The error of one of its methods.
    """
    if isinstance(error, S3Away):
        return StoreError(f"store {error}; check network and server, or name another with --store")
    if name.startswith("s3://"):
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return StoreError(
            f"store {name}: cannot be used ({reason}); check bucket, network and credentials, or "
            "name another with --store"
        )
    problem = storage_problem(error)
    return None if problem is None else StoreError(_message(name, problem))


class explained:  # noqa: N801 - reads as a context: `with explained(store.name):`
    """Turn a full or unwritable disk inside this block into a StoreError of one line.

    An error that names a file elsewhere (an unreadable cohort, say) passes unchanged.

    Args:
        name: The store's name, for the message.
        folder: The folder of its files on this machine; None: its name is the folder.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        self.folder = name if folder is None else str(folder)

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Raise StoreError for a disk's error."""
        if error is None or isinstance(error, InputError):
            return
        place = getattr(error, "filename", None)
        if place is not None and not str(place).startswith(self.folder):
            return
        problem = storage_problem(error)
        if problem is not None:
            raise StoreError(_message(self.name, problem)) from error


def _message(name: str, problem: str) -> str:
    return f"store {name}: {problem}; free or unlock it, or name another with --store"
