"""Builds wheels in which the package `analysis` is `namd.analysis`.

In a checkout `analysis` lies at the top. A wheel must not put a package of so common a name into a
user's environment, so its modules go into `namd/analysis`, and the import statements of everything
that uses them say so. Editable installs and sdists are the checkout itself and stay as it is.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "analysis"
INSIDE = f"namd/{PACKAGE}"
_IMPORT = re.compile(rf"^(\s*(?:from|import) ){PACKAGE}(?=[.\s])", re.MULTILINE)


def moved(source: str) -> str:
    """Return a module's source with its imports of `analysis` made imports of `namd.analysis`."""
    return _IMPORT.sub(rf"\1namd.{PACKAGE}", source)


def wheel_files(root: Path) -> dict[str, str]:
    """Return the modules that differ from the checkout in a wheel, by their path in it."""
    files = {}
    for package, place in ((PACKAGE, INSIDE), ("namd", "namd")):
        for path in sorted((root / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if package == PACKAGE or moved(source) != source:
                files[f"{place}/{path.relative_to(root / package).as_posix()}"] = moved(source)
    return files


class WheelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts those modules in the place of the checkout's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the modules to a wheel that is no editable install."""
        if version == "editable":
            return
        self._draft = tempfile.TemporaryDirectory(prefix="namd-wheel-")
        for name, source in wheel_files(Path(self.root)).items():
            path = Path(self._draft.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
            build_data["force_include"][str(path)] = name

    def finalize(self, version: str, *_: object) -> None:
        """Remove what was written for the wheel."""
        if version != "editable":
            self._draft.cleanup()
