"""A prefix of an S3 bucket as a storage, with a local folder.

Single files exist only as objects. Whole folders are filled locally and uploaded, or downloaded
once and never changed, because stage bodies read and write local files.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.config.places import local_path
from namd.storage.s3 import Patience, open_s3, upload_limit_s

if TYPE_CHECKING:
    from s3fs import S3FileSystem

CACHE_VARIABLE = "NAMD_STORE_CACHE"
"""Folder for local copies; a worker group on several nodes needs a shared one."""


class ObjectStorage:
    """A prefix of a bucket through s3fs; creation sends `If-None-Match: *`.

    Every call waits out an outage (see `Patience`); S3Away, an OSError, is raised if it lasts.

    Args:
        filesystem: s3fs, without caches of listings.
        root: Bucket and prefix.
        folder: Folder of local copies; may be removed while nothing runs.
        answered: Whether the server is known to exist: see `Patience`.
    """

    def __init__(
        self, filesystem: "S3FileSystem", root: str, folder: Path, answered: bool = False
    ) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self.root = f"s3://{self._root}"
        self.folder = folder
        self._patiently = Patience(self.root, answered=answered)
        self._uploaded: dict[str, tuple[int, int]] = {}

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:  # noqa: ARG002 - it is
        """Store the object if the name is free; False if it is taken."""
        try:
            self._pipe(name, data, mode="create")
        except FileExistsError:
            # A request whose answer was lost is sent again, and the second one then meets the
            # first one's object: ours, if the bytes are. Every caller's differ.
            return self.read(name) == data
        return True

    def replace(self, name: str, data: bytes, durable: bool = True) -> None:  # noqa: ARG002 - it is
        """Store the object, whether or not the name is taken."""
        self._pipe(name, data)

    def read(self, name: str) -> bytes:
        """Return the object's bytes. Raises FileNotFoundError."""
        return bytes(self._patiently(self._filesystem.cat_file, self._key(name)))

    def names(self, folder: str) -> list[str]:
        """Return the names directly under a prefix, sorted; [] without any."""
        return sorted({name for name, _ in self._listed(folder)})

    def folders(self, folder: str) -> list[str]:
        """Return the names of the prefixes directly under a folder, sorted; [] without any."""
        return sorted({name for name, kind in self._listed(folder) if kind == "directory"})

    def remove(self, name: str) -> None:
        """Remove the object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently(self._filesystem.rm_file, self._key(name))

    def remove_all(self, name: str) -> None:
        """Remove the objects at or under a name, and their local copies."""
        for place in self._objects(name):
            self.remove(place)
            self._uploaded.pop(place, None)
        local = self.folder / name
        if local.is_dir():
            shutil.rmtree(local, ignore_errors=True)
        else:
            local.unlink(missing_ok=True)

    def move(self, name: str, target: str) -> None:
        """Copy an object, then remove it under its old name."""
        self.replace(target, self.read(name))
        self.remove(name)

    def sweep(self, folder: str) -> None:
        """An upload that was cut short leaves nothing."""

    def working_folder(self, path: str) -> Path:
        """Return a folder of this machine."""
        folder = self.folder / path
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def upload(self, path: str) -> None:
        """Put every file of a working folder."""
        self._put([file for file in (self.folder / path).rglob("*") if file.is_file()])

    def fetch(self, path: str) -> Path:
        """Return the local copy, downloaded if it is missing: all of it or nothing."""
        folder = self.folder / path
        if not folder.is_dir():
            # Another process of this machine may have been quicker.
            quicker = contextlib.suppress(FileExistsError)
            with self._downloaded(path) as partial, quicker:
                _rename(partial, folder)
        return folder

    def renew(self, path: str) -> bool:
        """Download the files again and replace the local copy."""
        folder = self.folder / path
        retired = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
        with self._downloaded(path) as partial:
            try:
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(retired)
                with contextlib.suppress(FileExistsError):
                    _rename(partial, folder)
            finally:
                shutil.rmtree(retired, ignore_errors=True)
        return True

    @contextlib.contextmanager
    def _downloaded(self, path: str) -> Iterator[Path]:
        """Yield a folder with the objects under a path, to be renamed; what is left is removed."""
        folder = self.folder / path
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        try:
            self._get(self._objects(path), path, partial)
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def keep(self, path: str, first: str = "") -> None:
        """Put the files of a working folder that changed, and remove those that went.

        Args:
            path: The folder.
            first: Name of a file that goes before the others: it may be ahead of them, never
                behind.
        """
        states = {self._place(f): _state(f) for f in (self.folder / path).rglob("*") if f.is_file()}
        changed = [place for place, now in states.items() if self._uploaded.get(place) != now]
        if not changed:
            return

        def order(place: str) -> tuple[bool, int]:
            return place.rpartition("/")[2] != first, states[place][1]

        for place in sorted(changed, key=order):
            try:
                self._put([self.folder / place])
            except FileNotFoundError:
                if (self.folder / place).exists():
                    raise
                # A worker group continues meanwhile: the next checkpoint just replaced it.
                del states[place]
        for place in set(self._objects(path)) - set(states):
            self._patiently(self._filesystem.rm_file, self._key(place))
        self._uploaded |= states

    def restore(self, path: str) -> Path:
        """Return a working folder with the files that any machine saved last.

        If none were saved, this machine's files stay. Otherwise they are replaced, even by an
        older state: files of two states must not be mixed.
        """
        folder = self.working_folder(path)
        kept = self._objects(path)
        for place in kept:
            local = self.folder / place
            if not local.is_file() or self._uploaded.get(place) != _state(local):
                self._get([place], path, folder)
                self._uploaded[place] = _state(local)
        for local in folder.rglob("*") if kept else ():
            if local.is_file() and self._place(local) not in kept:
                local.unlink(missing_ok=True)
        return folder

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _place(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _listed(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield the name and type of what lies directly under a prefix, hidden names left out."""
        key = self._key(folder)
        try:
            found = self._patiently(self._filesystem.ls, key, detail=True, refresh=True)
        except FileNotFoundError:
            return
        for entry in found:
            # A prefix that is itself an object lists itself.
            place = entry["name"].rstrip("/")
            name = place.rpartition("/")[2]
            if place != key and not name.startswith("."):
                yield name, entry["type"]

    def _objects(self, path: str) -> Sequence[str]:
        """Return the objects at or under a path, by their place under the root."""
        found = self._patiently(self._filesystem.find, self._key(path), refresh=True)
        return [str(place).removeprefix(f"{self._root}/") for place in found]

    def _put(self, files: Sequence[Path]) -> None:
        if files:
            places = [f"{self._root}/{self._place(file)}" for file in files]
            limit_s = upload_limit_s(sum(file.stat().st_size for file in files))
            names = [str(file) for file in files]
            self._patiently(self._filesystem.put, names, places, timeout=limit_s)

    def _get(self, places: Sequence[str], path: str, folder: Path) -> None:
        """Download objects under a path to the same places under a folder."""
        targets = [folder / place.removeprefix(f"{path}/") for place in places]
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if places:
            sources = [f"{self._root}/{place}" for place in places]
            names = [str(target) for target in targets]
            self._patiently(self._filesystem.get, sources, names)

    def _pipe(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        limit_s = upload_limit_s(len(data))
        place = self._key(path)
        self._patiently(self._filesystem.pipe_file, place, data, mode=mode, timeout=limit_s)


def open_object_storage(
    url: str,
    answered: bool = False,
    **options: Any,  # noqa: ANN401 - for s3fs
) -> ObjectStorage:
    """Return the storage at an `s3://bucket/prefix` URL; `options` are for s3fs.

    Address and credentials come from the places that the AWS tools use.
    """
    return ObjectStorage(open_s3(**options), url.partition("://")[2], cache_folder(url), answered)


def cache_folder(url: str) -> Path:
    """Return the folder of local copies of the store at a URL."""
    base = os.environ.get(CACHE_VARIABLE)
    if not base:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/namd/stores"
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return local_path(base) / digest


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError as error:
        if folder.is_dir():
            raise FileExistsError(str(folder)) from error
        raise


def _state(file: Path) -> tuple[int, int]:
    """Return a mark that changes with a file's content; zeros if the file was just removed."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
