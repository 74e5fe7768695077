"""What is wrong with the place of a store, in one line with a way out."""

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
    """The store's place cannot be used: full, read-only, not a store."""


def storage_problem(error: BaseException | None) -> str | None:
    """Return what is wrong with the disk or S3, or None if the error is about something else.

    Libraries that write through Rust or C++ report it in words only, or as another error's cause.
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
    """Return the line for trouble with a storage, or None if the error is about something else.

    Args:
        name: Root of the storage.
        error: What one of its methods raised.
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
    """Turns a full or unwritable disk inside this block into a StoreError of one line.

    An error that names a file elsewhere (a cohort one may not read) is let through.

    Args:
        name: The store's, for the message.
        folder: Where its files lie on this machine; None: at its name.
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
