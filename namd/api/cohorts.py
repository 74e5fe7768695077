"""Cohorts as Python sees them: read, built from a source, found by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from namd.config.errors import InputError
from namd.config.places import local_path
from namd.data import building, card, cohort, named_cohort
from namd.statistics.notices import RESEARCH_ONLY, SIMULATED_COLUMNS

if TYPE_CHECKING:
    from namd.data.settings import CohortDemands


class Cohort(cohort.Cohort):
    """Cases with their images, and where they lie.

    `table` has a row per case; `baseline` and `followup` are int16 (N, S, S) in HU, `mask` is
    uint8 (N, S, S). `folder` is None until the cohort has been written or was read.
    """

    folder: Path | None = None

    @classmethod
    def read(cls, folder: str | Path, splits: Sequence[str] | None = None) -> "Cohort":
        """Read a cohort's folder, or some of its splits.

        Raises InputError if the folder is no cohort, or a split has another name than the three.
        """
        path = local_path(folder)
        found = _own(cohort.Cohort.read(path, splits))
        # Some splits are no cohort: a run reads the whole folder.
        found.folder = path if splits is None else None
        return found

    def write(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write the folder whole or not at all. Raises InputError, also if it is occupied."""
        path = local_path(folder)
        super().write(path, overwrite)
        self.folder = path

    def select(self, index: npt.ArrayLike) -> "Cohort":
        """Return the cases at integer positions, or where a boolean array is true."""
        return _own(super().select(index))

    @property
    def simulated(self) -> tuple[str, ...]:
        """Names of what was drawn by a program, not measured."""
        return tuple(card.simulated_columns(self.card))

    @property
    def banner(self) -> list[str]:
        """Lines to read before any number of it."""
        if not self.simulated:
            return [RESEARCH_ONLY]
        law = f" under the law {card.law_of(self.card)}" if card.law_of(self.card) else ""
        return [SIMULATED_COLUMNS.format(columns=", ".join(self.simulated), law=law), RESEARCH_ONLY]

    def splits(self) -> dict[str, dict[str, int]]:
        """Return cases, patients, malignant, unlabelled and followed cases of every split."""
        return card.split_counts(self)

    def __repr__(self) -> str:
        place = self.folder if self.folder is not None else "not written"
        drawn = f", SIMULATED: {', '.join(self.simulated)}" if self.simulated else ""
        return f"Cohort({len(self)} cases, {place}{drawn})"

    def _repr_html_(self) -> str:
        from namd.api.frames import card_html, result_frame

        counts = [{"split": split, **numbers} for split, numbers in self.splits().items()]
        facts = {
            "cases": len(self),
            "patients": self.table["patient_id"].nunique(),
            "crops": f"{self.size} pixels a side of {self.spacing_mm:g} mm",
            "folder": self.folder or "not written",
            "source": self.card.get("source", "not stated"),
        }
        table = result_frame(counts, "split", (), ())._repr_html_()
        return card_html("Cohort", self.banner, facts, table)


def build_phantom(
    out: str | Path | None = None,
    *,
    seed: int = named_cohort.SEED,
    cases: int | None = None,
    size_px: int | None = None,
    law: str = "marked",
    replicates: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Cohort:
    """Build the embedded cohort: rendered crops of real contours, simulated follow-ups.

    Args:
        out: The folder to write; None: the cohort stays in memory.
        seed: Of rendering, split and simulation.
        cases: The most cases it may have, replicates counted; None: all.
        size_px: Side of the stored crops in pixels of 0.5 mm; None: 92.
        law: `marked`, `sober`, `nlst` or `doubling-time`.
        replicates: Fresh simulations per nodule; None: the law's own number.
        settings: Of the simulation, by dotted path, such as `{"signs.strength": 0.5}`.

    Returns:
        The cohort; its card says what is real, rendered and simulated (docs/simulation.md).

    Raises:
        InputError: The folder is occupied or cannot be written, or a value is impossible.
    """
    folder = None if out is None else _free(out)
    chosen = building.simulation_settings(law, replicates, settings or {}, rendered=True)
    built = building.build_phantom(seed, chosen, cases, size_px)
    return _finished(built, seed, folder)


def build_crops(
    images: str | Path,
    table: str | Path,
    out: str | Path | None = None,
    *,
    seed: int,
    columns: Mapping[str, str | None] | None = None,
    simulate: bool = False,
    replace: Sequence[str] = (),
    law: str = "marked",
    replicates: int | None = None,
    settings: Mapping[str, Any] | None = None,
    source: str = "crops",
) -> Cohort:
    """Build a cohort from an npz of HU crops and a CSV with a line per nodule.

    Args:
        images: The npz: `hu` (N, H, W) in HU, and what else docs/cohorts.md names.
        table: The CSV.
        out: The folder to write; None: the cohort stays in memory.
        seed: Of split and simulation.
        columns: Our words to the CSV's column names; None for a word: it is not read.
        simulate: Whether what the files lack is simulated.
        replace: Columns that are simulated although the files have them.
        law: `marked`, `sober`, `nlst` or `doubling-time`.
        replicates: Fresh simulations per nodule; None: the law's own number.
        settings: Of the simulation, by dotted path.
        source: Name of the source in the card.

    Raises:
        InputError: A file cannot be read, its contents contradict each other, or the folder is
            occupied or cannot be written.
    """
    from namd.data.simulation.known import require_columns
    from namd.data.sources.columns import CropFiles

    folder = None if out is None else _free(out)
    if not simulate and (replace or settings or replicates is not None):
        raise InputError("replace, settings, replicates: without effect; add simulate=True")
    require_columns(replace)
    files = CropFiles(
        images=local_path(images), table=local_path(table), columns=columns or {}, source=source
    )
    chosen = building.simulation_settings(law, replicates, settings or {}) if simulate else None
    built = building.build_crops(files, seed, None, chosen, tuple(replace))
    return _finished(built, seed, folder)


def cohort_folder(
    given: "str | Path | cohort.Cohort",
    store: Path,
    demands: "CohortDemands | None" = None,
    *,
    build: bool = True,
) -> Path:
    """Return the folder of a cohort that a caller names: an object, a folder or `phantom[:N]`.

    Raises InputError if there is none, if it was never written, or if it cannot be trained on.
    """
    if isinstance(given, cohort.Cohort):
        folder = getattr(given, "folder", None)
        if folder is None:
            raise InputError(
                "cohort: this one is only in memory, or a part of one; write it to a folder "
                "(cohort.write(folder)) and name that"
            )
        given = folder
    return named_cohort.find_cohort(str(given), store, demands, build)


def _free(out: str | Path) -> Path:
    """Return a folder that may be written, before the work. Raises InputError."""
    folder = local_path(out)
    cohort.refuse_occupied(folder)
    return folder


def _finished(built: cohort.Cohort, seed: int, folder: Path | None) -> Cohort:
    """Judge a built cohort, warn (Python's `warnings`), and write it if a folder is given."""
    import warnings

    findings = building.finish(built, seed)
    for line in (*findings.unusable, *findings.warnings):
        warnings.warn(line, stacklevel=3)
    own = _own(built)
    if folder is not None:
        own.write(folder)
    return own


def _own(found: cohort.Cohort) -> Cohort:
    return Cohort(**{f.name: getattr(found, f.name) for f in dataclasses.fields(cohort.Cohort)})
