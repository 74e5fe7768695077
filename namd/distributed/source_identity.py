"""Whether a worker's namd is the driver's: other source would build artifacts under its keys.

Paths may differ, as on the nodes of a cluster. Source may not, except comments and docstrings.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from namd.config.errors import StageError
from namd.config.search_path import ROOT
from namd.methods.source_hash import PACKAGE, meaning

WAY_OUT = (
    "all of a study's processes need the same sources: install them on every node or send them "
    "with `namd submit`, and do not edit them while it runs"
)


class SourceError(StageError):
    """A worker has another namd than the driver; no trial is at fault."""


@dataclass(frozen=True)
class SourceIdentity:
    """Which namd a process imports.

    Attributes:
        version: The installed version; empty if it is not installed.
        file: The package's file.
        files_digest: SHA-256 (hex) of all its modules, byte for byte.
        digest: SHA-256 (hex) of their syntax trees without docstrings.
    """

    version: str
    file: str
    files_digest: str
    digest: str


@cache
def own_source(root: Path = ROOT) -> SourceIdentity:
    """Return the identity of the package under a folder; this process's by default."""
    package = root / PACKAGE
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        text = meaning(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(root).as_posix()} {text}\n".encode())
    file = str(package / "__init__.py")
    return SourceIdentity(installed_version(), file, files_digest(package), digest.hexdigest())


def installed_version() -> str:
    """Return the installed version; empty if it is not installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


@cache
def files_digest(package: Path) -> str:
    """Return the SHA-256 (hex) of the modules of a package folder, names included."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def require_same_source(driver: SourceIdentity, root: Path = ROOT) -> None:
    """Refuse to work for a driver whose namd differs from the one under a folder, by default ours.

    Raises SourceError.
    """
    if files_digest(root / PACKAGE) == driver.files_digest:
        return
    own = own_source(root)
    if own.digest != driver.digest:
        here = named(own.version, own.file, own.digest)
        there = named(driver.version, driver.file, driver.digest)
        raise SourceError(f"a worker imports {here}, but the driver {there}: {WAY_OUT}")


def named(version: str, file: str, digest: str) -> str:
    """Describe a namd, as in `namd 0.1.0 of /opt/namd/__init__.py (source 1f0a...)`."""
    return f"{PACKAGE} {version or 'without a version'} of {file} (source {digest[:12]})"
