"""The storage at a folder or URL."""

from typing import Any

from namd.config.places import local_path
from namd.storage.base import Storage
from namd.storage.errors import StoreError
from namd.storage.local import LocalStorage


def open_storage(url: str, answered: bool = False, **options: Any) -> Storage:  # noqa: ANN401
    """Return the storage at a folder, `file://` or `s3://` URL.

    Args:
        url: The folder or URL.
        answered: Whether the server is known to exist: see `s3.Patience`.
        options: For s3fs, which finds address and credentials as the AWS tools do.

    Raises:
        StoreError: Another protocol, which may not create files atomically.
    """
    protocol, separator, rest = url.partition("://")
    if separator and protocol in ("s3", "s3a"):
        from namd.storage.objects import open_object_storage

        return open_object_storage(url, answered, **options)
    if separator and protocol != "file":
        raise StoreError(f"store {url}: only local folders, file:// and s3:// are known")
    return LocalStorage(local_path(rest if separator else url).absolute())
