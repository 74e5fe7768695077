"""What of a project a job is sent: its sources, in one archive; never data, artifacts or caches.

Which cluster it goes to is not known here.
"""

import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from namd.config.errors import InputError
from namd.pipeline.store import STORE_FILE

NEVER = frozenset(
    {
        ".git",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
        ".import_linter_cache",
        "wandb",
        "runs",
    }
)
"""Folders that stay here wherever they lie."""

NEVER_AT_TOP = frozenset({"data", "store", "stores", "build", "dist"})
"""Folders that stay here right under the project; `namd/data` is source."""

DATA_SUFFIXES = frozenset({".dcm", ".nii", ".parquet", ".safetensors", ".ckpt", ".pt", ".zip"})
"""Files that may hold scans, records of people, or weights."""

_MARKS = frozenset({STORE_FILE, "cases.parquet"})
"""A folder with one of these is a store or a cohort, under whatever name."""

LIMIT_BYTES = 32 * 2**20
"""Sources are a few MiB; what is larger is data that was forgotten here."""

_NAMED = 3
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Upload:
    """Files of a project.

    Attributes:
        root: Its folder.
        files: Their size in bytes, by path under the root, sorted.
    """

    root: Path
    files: dict[PurePosixPath, int]

    @property
    def num_bytes(self) -> int:
        """Size of all files, unpacked."""
        return sum(self.files.values())

    def largest(self) -> list[tuple[str, int]]:
        """Return folders with their bytes, largest first; files right under the root as such."""
        sizes: Counter[str] = Counter()
        for path, num_bytes in self.files.items():
            sizes["/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]] += num_bytes
        return sizes.most_common()


def collect(root: Path, exclude: Sequence[str] = (), keep: Sequence[Path] = ()) -> Upload:
    """Find what to send: what git tracks or would track, or every file where there is no git.

    Args:
        root: The project's folder.
        exclude: Further paths under it that stay here.
        keep: Files that are sent wherever they lie: the study file.

    Raises:
        InputError: The root is no folder, or sources exceed LIMIT_BYTES: names the folders.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder to send")
    kept = {PurePosixPath(path.relative_to(root).as_posix()) for path in keep}
    found = {*_listed(root), *kept}
    closed = {path.parent for path in found if path.name in _MARKS}
    closed |= {PurePosixPath(name.strip("/")) for name in exclude}
    files = {}
    for path in sorted(found):
        place = root / path
        if place.is_symlink() or not place.is_file():
            continue
        if path not in kept and _stays(path, closed):
            continue
        files[path] = place.stat().st_size
    upload = Upload(root, files)
    if upload.num_bytes > LIMIT_BYTES:
        named = ", ".join(f"{name} {_mib(size)}" for name, size in upload.largest()[:_NAMED])
        raise InputError(
            f"{root}: {_mib(upload.num_bytes)} to send, more than {_mib(LIMIT_BYTES)}; largest: "
            f"{named}; leave folders out with --exclude, or in .gitignore"
        )
    return upload


def write_archive(upload: Upload, archive: Path) -> None:
    """Write the files as a zip whose bytes depend on nothing but theirs.

    Ray names a package by its digest: the same sources are then sent once, not at each submission.
    """
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_DEFLATED) as packed:
        for path in upload.files:
            entry = zipfile.ZipInfo(str(path), _EPOCH)
            entry.external_attr = (upload.root / path).stat().st_mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, (upload.root / path).read_bytes())


def _listed(root: Path) -> list[PurePosixPath]:
    """Return candidate files under the root."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return list(_walked(root))
    if done.returncode:
        return list(_walked(root))
    return [PurePosixPath(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]


def _walked(root: Path) -> Iterator[PurePosixPath]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in NEVER)
        for name in files:
            yield PurePosixPath((Path(folder) / name).relative_to(root).as_posix())


def _stays(path: PurePosixPath, closed: set[PurePosixPath]) -> bool:
    folders = path.parts[:-1]
    return (
        not NEVER.isdisjoint(folders)
        or (bool(folders) and folders[0] in NEVER_AT_TOP)
        or path.suffix in DATA_SUFFIXES
        or path in closed
        or any(parent in closed for parent in path.parents)
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
