"""What a planted fault is, and the table of them; trying one out is `trial`'s business."""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).parent / "table"


CHOICE = re.compile(r'PARALLEL_PART :=.*?-m "([^"]+)"', re.DOTALL)
"""How the Makefile says which tests `make test-fast` runs."""


class TableError(Exception):
    """The table of faults does not fit the source. One line: which fault, and what to mend."""


@dataclass(frozen=True)
class Fault:
    """One plausible mistake, as an exact replacement in one file.

    Attributes:
        name: Unique; what a survivor is called by.
        file: The file, from the root of the repository.
        old: Text that occurs there exactly once.
        new: What the mistake writes in its place.
        means: What would then be computed, for whoever reads that it survived.
        tests: Test files that should fail, from the root; all of `make test-fast`.
    """

    name: str
    file: str
    old: str
    new: str
    means: str
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        """The package of namd that the fault lies in."""
        return Path(self.file).parts[1]

    def planted(self, source: str) -> str:
        """Return the source with the mistake in it.

        Raises TableError unless the old text occurs exactly once, and says something else.
        """
        count = source.count(self.old)
        if count != 1:
            raise TableError(
                f"{self.name}: its old text occurs {count} times in {self.file}, not once; "
                "write the fault anew for the source as it is"
            )
        if self.old == self.new:
            raise TableError(f"{self.name}: old and new text are the same")
        return source.replace(self.old, self.new)


def read_table(folder: Path = TABLE) -> tuple[Fault, ...]:
    """Return every fault of the table's files, in order.

    Raises TableError if an entry lacks a field, has one too many, or repeats a name.
    """
    faults: list[Fault] = []
    wanted = {field.name for field in fields(Fault)}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]:
            name = entry.get("name", f"an entry of {path.name}")
            if set(entry) != wanted:
                wrong = ", ".join(sorted(wanted ^ set(entry)))
                raise TableError(f"{name}: {wrong} is missing, or no field of a fault")
            faults.append(Fault(**(entry | {"tests": tuple(entry["tests"])})))
    names = [fault.name for fault in faults]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"{twice[0]}: two faults have this name")
    return tuple(faults)


def fast_options(makefile: str) -> tuple[str, ...]:
    """Return the options of pytest by which `make test-fast` chooses its tests."""
    found = CHOICE.findall(makefile)
    if len(found) != 1:
        raise TableError(f"Makefile: {len(found)} choices of tests (-m) in PARALLEL_PART, not one")
    return ("-m", found[0])


def require_fast(fault: Fault, options: tuple[str, ...], root: Path = REPOSITORY) -> None:
    """Raise TableError unless every test file of a fault exists and `make test-fast` runs it."""
    left_out = re.findall(r"not (\w+)", options[1])
    for test in fault.tests:
        if not (root / test).is_file():
            raise TableError(f"{fault.name}: {test} is no file")
        source = (root / test).read_text(encoding="utf-8")
        if any(f"pytestmark = pytest.mark.{mark}" in source for mark in left_out):
            raise TableError(f"{fault.name}: {test} is no test of `make test-fast`")


def chosen(faults: tuple[Fault, ...], patterns: list[str]) -> tuple[Fault, ...]:
    """Return the faults whose name, room or file holds one of the patterns; all without any.

    Raises TableError for a pattern that no fault has.
    """
    picked = set()
    for pattern in patterns:
        matching = [f for f in faults if pattern in f.name or pattern in (f.room, f.file)]
        if not matching:
            raise TableError(f"{pattern}: no fault has this in its name, nor lies in such a room")
        picked.update(matching)
    return tuple(f for f in faults if f in picked) if patterns else faults
