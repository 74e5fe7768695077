"""Runs as Python sees them: planned, carried out, and loaded from a store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from namd.api.cohorts import cohort_folder
from namd.api.copies import copies_line, draw_copies
from namd.api.frames import ResultFrame, card_html, result_frame
from namd.api.predictions import NUM_DRAWS, Prediction
from namd.api.stores import named_store, viewed_store
from namd.config.errors import InputError
from namd.config.overrides import Overrides
from namd.config.parsing import to_mapping
from namd.config.places import local_path
from namd.data.cohort import Cohort
from namd.data.named_cohort import not_built
from namd.models.weights import WeightStatus, describe
from namd.pipeline import run_plan
from namd.pipeline.finished_run import FinishedRun, finished_run
from namd.pipeline.reporting import Reporter
from namd.pipeline.run import readable_runs
from namd.pipeline.run import run as execute
from namd.pipeline.run_configuration import RunConfiguration, resolve
from namd.pipeline.store import Artifact, Store
from namd.statistics.notices import RESEARCH_ONLY, simulated_notice

CohortLike = str | Path | Cohort
"""A cohort's folder, `phantom`, `phantom:CASES`, or a cohort that was read or written."""

FIRST_COLUMNS = ("num_draws", "auroc.mean", "auroc.low", "auroc.high")


@dataclass(frozen=True)
class RunPlan:
    """What a run would build; nothing was trained for it.

    Attributes:
        key: The key that the run will have, unless it is provisional.
    """

    key: str
    _plan: run_plan.RunPlan

    @property
    def stages(self) -> ResultFrame:
        """One row per stage: its key, whether the store has it, and estimated seconds."""
        plan = self._plan
        rows = [
            {
                "stage": stage.stage.label,
                "key": stage.key,
                "cached": stage.cached,
                "other_source": stage.other_source,
                "seconds": plan.seconds.get(stage.stage.label),
            }
            for stage in plan.stages
        ]
        return result_frame(rows, "stage", ("key", "cached"), ())

    @property
    def num_missing(self) -> int:
        """Number of stages to build."""
        return self._plan.num_missing

    @property
    def provisional(self) -> bool:
        """Whether keys will change: weights are missing, or a phantom is not built yet."""
        return self._plan.provisional

    @property
    def problems(self) -> tuple[str, ...]:
        """Lines on what is missing: pretrained weights, a phantom that the run builds first."""
        lines = [status.refusal for status in self._plan.missing_weights]
        if not self._plan.cohort_built:
            lines.append(not_built(self._plan.cohort))
        return tuple(lines)

    def __repr__(self) -> str:
        return f"RunPlan({self.key[:12]}: {self.num_missing} of {len(self.stages)} stages to build)"

    def _repr_html_(self) -> str:
        facts = {"run": self.key[:12], "to build": f"{self.num_missing} of {len(self.stages)}"}
        facts |= {f"note {n}": line for n, line in enumerate(self.problems, start=1)}
        return card_html("Run plan", (), facts, self.stages._repr_html_())


@dataclass(frozen=True)
class Run:
    """A finished run: its table, and what can be done with its models.

    Attributes:
        key: Names it in its store.
        record: What the store keeps of it: `config`, `rows`, `stages`, `about`, ...
        store: Holds its artifacts.
        cohort: Folder of its cohort; None if it was loaded without one.
    """

    key: str
    record: Mapping[str, Any] = field(repr=False)
    store: Store = field(repr=False)
    cohort: Path | None = None

    @property
    def simulated(self) -> bool:
        """Whether its labels or follow-ups were drawn by a program."""
        return bool((self.record.get("about") or {}).get("simulated"))

    @property
    def banner(self) -> list[str]:
        """Lines to read before any number of it."""
        law = (self.record.get("about") or {}).get("law")
        return [*([simulated_notice(law)] if self.simulated else []), RESEARCH_ONLY]

    @property
    def rows(self) -> ResultFrame:
        """The table: one row per method or reference, columns such as `auroc.mean`."""
        return result_frame(self.record.get("rows") or (), "row", FIRST_COLUMNS, self.banner)

    @property
    def stages(self) -> ResultFrame:
        """One row per stage: key, whether it was in the store, seconds of building."""
        return result_frame(self.record["stages"], "label", ("key", "cached", "seconds"), ())

    @property
    def gap_recovered(self) -> float | None:
        """Share of the AUROC gap, real baseline to real follow-up, recovered per draw."""
        return self.record.get("gap_recovered")

    @property
    def copies(self) -> str | None:
        """How near its draws come to crops that it was trained on, in one line; None: unknown."""
        rows = {row["row"]: row for row in self.record.get("rows") or ()}
        return copies_line(rows.get(str(self.record.get("method")), {}))

    @property
    def configuration(self) -> RunConfiguration:
        """How it was made, every automatic choice resolved."""
        return self._finished.configuration

    def predict(
        self,
        dicom: str | Path,
        centre: Sequence[float],
        ehr: str | Path,
        *,
        draws: int = NUM_DRAWS,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        """Draw possible follow-ups of one nodule of a new patient, and judge them.

        Args:
            dicom: A folder with the files of one complete axial CT series.
            centre: Of the nodule, x, y, z in patient mm as ImagePositionPatient counts.
            ehr: A JSON object of NLST names and codes.
            draws: K, 1 or more.
            progress: Called with (draws done, K).

        Returns:
            Draws in HU and the judge's probability of malignancy one year on for each.

        Raises:
            InputError: The series, the record or the run cannot be used.
        """
        from namd.api.predictions import predict
        from namd.data.ehr import read_record

        record = read_record(local_path(ehr))
        return predict(
            self.store,
            self._finished,
            _series_folder(dicom),
            [float(number) for number in centre],
            record,
            draws=draws,
            cohort=self.cohort,
            progress=progress,
        )

    def picture(self, out: str | Path) -> Path:
        """Write a picture of drawn cases; return its path.

        Raises InputError if the run has no draws, or was loaded without its cohort.
        """
        from namd.api.draws_picture import draw_picture

        path, cohort = local_path(out), self._cohort_to_show()
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(self._artifacts(), self.configuration, cohort, path)
        return path

    def copies_picture(self, out: str | Path) -> Path:
        """Write the draws that are nearest to a crop of the train split; return the path.

        Raises InputError if the run did not measure copies, or was loaded without its cohort.
        """
        path, cohort = local_path(out), self._cohort_to_show()
        draw_copies(self._artifacts(), self.configuration, cohort, path)
        return path

    def _cohort_to_show(self) -> Path:
        if self.cohort is None:
            raise InputError(
                f"run {self.key[:12]}: a picture shows its cases; load it with cohort="
            )
        return self.cohort

    def _artifacts(self) -> dict[str, Artifact]:
        keys, found = self._finished.keys, {}
        for stage in self.configuration.stages():
            if stage.label in keys:
                found[stage.label] = self.store.find(stage.name, keys[stage.label])
        return {label: artifact for label, artifact in found.items() if artifact is not None}

    @cached_property
    def _finished(self) -> FinishedRun:
        return finished_run(self.store, self.key)

    def __repr__(self) -> str:
        return f"Run({self.key[:12]})\n{self.rows!r}"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            "run": self.key[:12],
            "method": self.record.get("method"),
            "preset": self.record.get("preset"),
        }
        if (copies := self.copies) is not None:
            facts["copies"] = copies
        table = result_frame(self.record.get("rows") or (), "row", FIRST_COLUMNS, ())
        return card_html("Run", self.banner, facts, table._repr_html_())


def run(
    preset: str | None = None,
    *,
    cohort: CohortLike,
    method: str | None = None,
    store: str | Path | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the command line
    config: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Carry one configuration through all its stages to a score table.

    What the store has is not built again. An interrupted run continues from its last checkpoint
    when it is called again.

    Args:
        preset: Where the configuration starts from, such as `base`.
        cohort: A folder, `phantom` or `phantom:CASES` (built once beside the artifacts), or a
            cohort that was read or written.
        method: Which row of the paper's Table 1; None: the configuration's.
        store: Folder or URL of the artifacts, made if absent; None: `$NAMD_STORE`.
        set: Values by dotted path, such as `{"vae.alignment.weight": 0}`.
        config: A YAML file laid over the preset.
        reporter: Receives progress (`namd.pipeline.reporting.Reporter`); None: silent.

    Returns:
        The run: `rows` is its table.

    Raises:
        InputError: A value, the cohort, the store or pretrained weights cannot be used.
        StageError: A stage failed.
    """
    configuration = _configuration(preset, method, set, config)
    run_plan.require_weights(configuration)
    opened = named_store(store, create=True)
    folder = cohort_folder(cohort, opened.backend.folder, configuration.demands())
    result = execute(configuration, folder, opened, reporter)
    return _recorded(opened, result.run, folder)


def plan(
    preset: str | None = None,
    *,
    cohort: CohortLike,
    method: str | None = None,
    store: str | Path | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the command line
    config: str | Path | None = None,
) -> RunPlan:
    """Return what `run` with the same arguments would build; nothing is written.

    Raises InputError as `run` does, save that missing weights are listed in `problems`.
    """
    configuration = _configuration(preset, method, set, config)
    opened = viewed_store(store)
    folder = cohort_folder(cohort, opened.backend.folder, configuration.demands(), build=False)
    made = run_plan.make_run_plan(configuration, folder, opened)
    return RunPlan(made.run, made)


def load_run(key: str, store: str | Path | None = None, *, cohort: str | Path | None = None) -> Run:
    """Return a finished run of a store.

    Args:
        key: Its key, or the start of one (`namd store ls` lists them).
        store: Folder or URL; None: `$NAMD_STORE`.
        cohort: Folder of its cohort, which only pictures need.

    Raises:
        InputError: There is no such store, or no run, or more than one, of that key.
    """
    opened = named_store(store)
    whole = finished_run(opened, key).key
    return _recorded(opened, whole, None if cohort is None else local_path(cohort))


def weights(preset: str | None = None, *, method: str | None = None) -> list[WeightStatus]:
    """Return the pretrained weights that a preset wants: found or not, licence, how to fetch them.

    Args:
        preset: None: every weight there is.
        method: Whose preset; None: the default method's.

    Raises:
        ConfigError: The preset or the method is unknown.
    """
    if preset is None and method is None:
        return describe()
    overrides = [] if method is None else [f"method={method}"]
    return describe(to_mapping(resolve(preset, None, overrides).config))


def _configuration(
    preset: str | None,
    method: str | None,
    values: Mapping[str, Any] | None,
    config: str | Path | None,
) -> RunConfiguration:
    if preset is None and config is None:
        raise InputError("no configuration: name a preset (`namd presets` lists them) or config=")
    overrides: Overrides = {**({} if method is None else {"method": method}), **(values or {})}
    return resolve(preset, None if config is None else local_path(config), overrides)


def _series_folder(dicom: str | Path) -> Path:
    """Return the folder of a series; its name may be a patient's and is not repeated."""
    try:
        folder = local_path(dicom)
        there = folder.is_dir()
    except (InputError, OSError):
        there = False
    if not there:
        raise InputError("dicom: no such folder; name one that holds the files of one CT series")
    return folder


def _recorded(store: Store, key: str, cohort: Path | None) -> Run:
    return Run(key, readable_runs(store)[0][key], store, cohort)
