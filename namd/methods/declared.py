"""The views through which a stage's body reads: what its stage declares, and nothing else.

They are made in `StageContext` alone, so they are the same under every runner. A body that asks
for more gets an UndeclaredError that says what to add to the declaration.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from namd.config.errors import UndeclaredError
from namd.config.refusal import RefusingMapping
from namd.data.schema import EVERYTHING
from namd.storage.stage_names import StageName

if TYPE_CHECKING:
    from namd.data.cohort import Cohort
    from namd.data.cohort_view import CohortView

CARD_COLUMNS = ("card.simulation",)
"""What `*` in a cohort slice means besides every column."""


def undeclared(stage: str, what: str, way_out: str) -> UndeclaredError:
    """Return the error of a body that reads what its stage does not declare."""
    return UndeclaredError(
        f"stage {stage} reads {what}, which it does not declare; {way_out} where the stage is "
        "declared, or do not read it"
    )


class DeclaredSettings:
    """The sections and values of a configuration that a stage declares, by attribute.

    Args:
        stage: Its name.
        content: The slice, as `base.cut` returns it.
        path: Where in the configuration it lies, with a dot at its end; empty for the whole.
    """

    __slots__ = ("_content", "_path", "_stage")

    def __init__(self, stage: str, content: SimpleNamespace, path: str = "") -> None:
        self._stage, self._path = stage, path
        self._content = {
            name: DeclaredSettings(stage, value, f"{path}{name}.")
            if isinstance(value, SimpleNamespace)
            else value
            for name, value in vars(content).items()
        }

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any configuration value
        """Return a declared section or value. Raises UndeclaredError for any other."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._content:
            return self._content[name]
        path = f"{self._path}{name}"
        raise undeclared(self._stage, f"configuration value {path}", f'add "{path}" to reads')


class DeclaredCohort:
    """The columns and splits of a cohort that a stage declares.

    Args:
        stage: Its name.
        folder: The cohort's folder.
        columns: That it declares; `*` for all.
        splits: That it declares.
    """

    def __init__(
        self, stage: str, folder: Path, columns: Iterable[str] = (), splits: Iterable[str] = ()
    ) -> None:
        self._stage, self._folder = stage, folder
        self._columns, self._splits = tuple(columns), tuple(splits)
        if EVERYTHING in self._columns:
            self._columns += CARD_COLUMNS

    def __str__(self) -> str:
        """Return where the cohort lies, for messages."""
        return str(self._folder)

    def read(self, split: str) -> "CohortView":
        """Read the declared columns of one split.

        Raises:
            UndeclaredError: The stage does not declare this split.
            InputError: The folder is no cohort.
        """
        from namd.data.cohort_view import CohortView

        if split not in self._splits:
            raise undeclared(
                self._stage,
                f"split {split} of the cohort",
                f'add "{split}" to the splits of its CohortSlice',
            )
        return CohortView.read_columns(self._folder, (split,), self._columns, self._refuse)

    def view(self, cohort: "Cohort") -> "CohortView":
        """Return the declared columns of cases in memory."""
        from namd.data.cohort_view import CohortView

        return CohortView.of(cohort, self._columns, self._refuse)

    def _refuse(self, column: str) -> UndeclaredError:
        return undeclared(
            self._stage,
            f"column {column} of the cohort",
            f'add "{column}" to the columns of its CohortSlice',
        )


def declared_inputs(
    stage: str, upstream: Iterable[str], artifacts: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Return the artifacts that a stage declares; of a family the members that it was handed."""
    names = set(upstream)
    handed = {label for label in artifacts if _name(label) in names}

    def refuse(label: str) -> UndeclaredError:
        if _name(label) in names:
            way_out = "a stage with an index reads the member of its own index: ask for that"
        else:
            way_out = f'add "{_name(label)}" to upstream'
        return undeclared(stage, f"the artifact {label}", way_out)

    return RefusingMapping(artifacts, names | handed, refuse)


def declared_values(stage: str, constants: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the stage's own constants."""
    return RefusingMapping(
        constants,
        set(constants),
        lambda name: undeclared(stage, f"its constant {name}", f'add "{name}" to values'),
    )


def _name(label: str) -> str:
    return StageName.read({}, label).name
