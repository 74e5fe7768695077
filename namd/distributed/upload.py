"""The upload of a job: one archive of what a study needs and of the files named with `--include`.

Nothing else is sent. namd.distributed.content decides which contents must stay on this machine.
"""

import os
import stat
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from namd.config.errors import InputError
from namd.distributed.content import refusal
from namd.storage.artifacts import STORE_FILE

SOURCES = (("namd", ".py"), ("analysis", ".py"))
"""Folders and suffixes of the sources of `namd study run`; a job needs no other file of ours."""

DEMO = PurePosixPath("namd/cli/demo.yaml")
"""The one study file that is part of a package."""

PRESETS = PurePosixPath("namd/methods/METHOD/presets/PRESET.yaml")
"""Presets, for every method."""

METADATA = tuple(map(PurePosixPath, ("pyproject.toml", "requirements.lock", "hatch_build.py")))
"""Files needed to install a checkout of namd."""

ENTRY = PurePosixPath("namd/cli/main.py")
"""The module that a job runs: a folder with it is a checkout of namd."""

_CACHES = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", "wandb"})
"""Folders that are left out of an included folder."""

_MARKS = {STORE_FILE: "--store", "cases.parquet": "--cohort"}
"""A folder with one of these files is a store or a cohort."""

LIMIT_BYTES = 32 * 2**20
"""Sources are a few MiB; anything larger is data."""

_NAMED = 3
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = (stat.S_IFREG | 0o644) << 16


@dataclass(frozen=True)
class Upload:
    """Files to send, with the contents that were checked.

    Attributes:
        contents: Bytes by path in the archive, sorted.
        included: Files from `--include`, beyond what a study needs.
        sources: The folder of namd's own sources.
    """

    contents: dict[PurePosixPath, bytes]
    included: frozenset[PurePosixPath] = frozenset()
    sources: Path = Path()

    @property
    def files(self) -> dict[PurePosixPath, int]:
        """Sizes in bytes by path."""
        return {path: len(data) for path, data in self.contents.items()}

    @property
    def num_bytes(self) -> int:
        """Size of all files, uncompressed."""
        return sum(self.files.values())


def collect(
    root: Path,
    study: PurePosixPath,
    *,
    include: Sequence[Path] = (),
    exclude: Sequence[str] = (),
) -> Upload:
    """Read the study file, namd's sources and the included files.

    The sources are those under the root, if it is a checkout of namd, else those of the running
    namd. Cohort, store and weights that a study file names must be on the nodes.

    Args:
        root: The project's folder, with no link in its path.
        study: The study file, relative to the root.
        include: Further files, or folders without what git ignores in them.
        exclude: Paths under the root to leave out; the study file is always sent.

    Raises:
        InputError: A file must not be sent (see namd.distributed.content), is a link, does not
            exist or is outside the root, or all of them exceed LIMIT_BYTES.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder to send")
    closed = {_excluded(root, name) for name in exclude}
    included: set[PurePosixPath] = set()
    for place in include:
        included.update(_included(root, place, closed))
    origin = root if (root / ENTRY).is_file() else Path(__file__).resolve().parents[2]
    places = {path: origin / path for path in _sources(origin)}
    if origin == root:
        places |= {path: root / path for path in METADATA if (root / path).exists()}
    else:
        _require_apart(included, places)
    places |= {path: root / path for path in included}
    places = {path: place for path, place in places.items() if not _within(path, closed)}
    places[study] = root / study
    _require_small(places)
    contents = {path: _read(root, path, place) for path, place in sorted(places.items())}
    return Upload(contents, frozenset(included) & contents.keys() - {study}, origin)


def write_archive(upload: Upload, archive: Path) -> None:
    """Write the files as a zip whose bytes depend only on the files.

    Ray names a package by its digest: the same sources are uploaded once, not at each submission.
    """
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_DEFLATED) as packed:
        for path, data in upload.contents.items():
            entry = zipfile.ZipInfo(str(path), _EPOCH)
            entry.external_attr = _MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, data)


def is_source(path: PurePosixPath) -> bool:
    """Whether a path is one of the source files of `namd study run`."""
    return (
        any(
            path.suffix == suffix and PurePosixPath(folder) in path.parents
            for folder, suffix in SOURCES
        )
        or path == DEMO
        or _is_preset(path)
    )


def _is_preset(path: PurePosixPath) -> bool:
    parts = path.parts
    return (
        len(parts) == len(PRESETS.parts)
        and parts[:2] == PRESETS.parts[:2]
        and parts[3] == PRESETS.parts[3]
        and path.suffix == PRESETS.suffix
    )


def _sources(origin: Path) -> list[PurePosixPath]:
    """Return namd's sources under a folder, without those that git ignores, if it is a checkout."""
    packages = sorted({folder.partition("/")[0] for folder, _ in SOURCES})
    listed = _listed(origin, packages)
    if listed is None or ENTRY not in listed:
        listed = {path for name in packages for path in _walked(origin, PurePosixPath(name))}
    # A file that git lists may have been removed; a linked folder is refused when it is read.
    return [
        path
        for path in listed
        if (is_source(path) and os.path.lexists(origin / path))
        or ((origin / path).is_symlink() and (origin / path).is_dir())
    ]


def _included(root: Path, given: Path, closed: set[PurePosixPath]) -> set[PurePosixPath]:
    """Return the files of one `--include`, relative to the root."""
    # A link at the end is not resolved, so that it is detected.
    place = given.resolve() if given.name in ("", "..") else given.parent.resolve() / given.name
    if root != place and root not in place.parents:
        raise InputError(
            f"--include {given}: is outside the uploaded folder {root}; name a parent of both "
            "with --working-dir"
        )
    path = PurePosixPath(place.relative_to(root).as_posix())
    if place.is_symlink() or not place.is_dir():
        _require_sources(root, given, {path})
        return {path}
    candidates = {path for path in _walked(root, path) if not _within(path, closed)}
    _require_sources(root, given, candidates)
    kept = _listed(root, [str(path)])
    if kept is not None:
        candidates &= kept
    if not candidates:
        raise InputError(
            f"--include {given}: nothing in it can be sent: it is empty, or git ignores it; name "
            "single files"
        )
    return candidates


def _excluded(root: Path, name: str) -> PurePosixPath:
    """Return the path of one `--exclude`, relative to the root. Raises InputError."""
    place = Path(os.path.normpath(root / name))
    if not place.is_relative_to(root) or not os.path.lexists(place):
        raise InputError(f"--exclude {name}: no such file or folder in {root}; leave it out")
    return PurePosixPath(place.relative_to(root).as_posix())


def _require_sources(root: Path, given: Path, paths: set[PurePosixPath]) -> None:
    """Refuse files from a cohort or a store. Raises InputError."""
    for folder in sorted({parent for path in paths for parent in path.parents}):
        for mark, option in _MARKS.items():
            if folder.parts and (root / folder / mark).exists():
                raise InputError(
                    f"--include {given}: {folder} is a cohort or a store, which is never sent; "
                    f"pass its path on the nodes with {option}"
                )


def _require_apart(included: Iterable[PurePosixPath], sources: Iterable[PurePosixPath]) -> None:
    for path in sorted(set(included) & set(sources)):
        raise InputError(
            f"--include {path}: collides with namd's own {path}; give the file another name"
        )


def _require_small(places: dict[PurePosixPath, Path]) -> None:
    """Refuse files too large to be sources, before they are read. Raises InputError."""
    sizes: Counter[str] = Counter()
    for path, place in places.items():
        if place.is_file() and not place.is_symlink():
            folder = "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]
            sizes[folder] += place.stat().st_size
    if sizes.total() > LIMIT_BYTES:
        largest = sizes.most_common(_NAMED)
        named = ", ".join(f"{name} {_mib(num_bytes)}" for name, num_bytes in largest)
        raise InputError(
            f"{_mib(sizes.total())} to send, more than {_mib(LIMIT_BYTES)}; largest: {named}; "
            "leave folders out with --exclude, or include less"
        )


def _read(root: Path, path: PurePosixPath, place: Path) -> bytes:
    """Return a file's bytes if it may be sent. Raises InputError."""
    try:
        link = _link(root, path)
        # Links of an installed package were made by its installer.
        if link is not None and place == root / path:
            raise InputError(
                f"{link}: is a link, and links are not followed; include the file itself, or "
                "leave it out with --exclude"
            )
        if not place.is_file():
            what = "is not a file" if place.exists() else "no such file"
            raise InputError(f"{place}: {what} to send; leave it out")
        data = place.read_bytes()
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror}); leave it out") from error
    reason = refusal(path, data)
    if reason is not None:
        raise InputError(
            f"{place}: not sent ({reason}): only text without keys is sent; leave it out with "
            "--exclude, and put data that a study reads on the nodes"
        )
    return data


def _link(root: Path, path: PurePosixPath) -> Path | None:
    """Return the link that a path under the root passes through, if any."""
    steps = [root / step for step in (*reversed(path.parents), path)][1:]
    return next((step for step in steps if step.is_symlink()), None)


def _listed(root: Path, names: Sequence[str]) -> set[PurePosixPath] | None:
    """Return the files under some paths that git does not ignore; None if root is no repository."""
    command = ["git", "--literal-pathspecs", "-C", str(root), "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard", "--", *names]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode:
        return None
    return {PurePosixPath(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name}


def _walked(root: Path, start: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield files under a folder, links among them, which are not followed."""
    for folder, names, files in os.walk(root / start):
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        names[:] = sorted(name for name in names if name not in _CACHES)
        for name in [*files, *links]:
            yield PurePosixPath((Path(folder) / name).relative_to(root).as_posix())


def _within(path: PurePosixPath, folders: set[PurePosixPath]) -> bool:
    return path in folders or any(parent in folders for parent in path.parents)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
