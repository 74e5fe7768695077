"""What a study will run and cost, as Python sees it, and how its parts are found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from namd.api.cohorts import cohort_folder
from namd.api.frames import ResultFrame, card_html, result_frame
from namd.api.runs import CohortLike
from namd.config.errors import InputError
from namd.config.places import local_path, place
from namd.data.named_cohort import not_built, phantom_named, stand_in
from namd.ledger.view import StudyView
from namd.pipeline.store import view_store
from namd.study import plan as planning
from namd.study.opening import past, store_url
from namd.study.spec import StudySpec, parse_study, read_study
from namd.study.this_machine import this_machine
from namd.study.trials import Configurator

StudyLike = str | Path | Mapping[str, Any]
"""A study file, or its contents as a mapping."""


@dataclass(frozen=True)
class StudyPlan:
    """What a study will run and cost; nothing was run for it.

    Attributes:
        study: Its name.
        cohort_built: Whether the cohort exists; a phantom that does not is built by the run.
    """

    study: str
    cohort_built: bool
    _plan: planning.StudyPlan = field(repr=False)
    _cohort: Path = field(repr=False)

    @property
    def refused(self) -> str | None:
        """Why it cannot run, or None."""
        return self._plan.refused

    @property
    def trials(self) -> int:
        """Number of trials, confirmation of a search's winner included."""
        return self._plan.trials

    @property
    def device_hours(self) -> float:
        """Device hours to spend, without stages of unknown cost."""
        return self._plan.device_hours

    @property
    def stages(self) -> ResultFrame:
        """One row per stage name: distinct artifacts, those in the store, seconds for each."""
        rows = [
            {
                "stage": stage.stage,
                "distinct": stage.distinct,
                "in_store": stage.in_store,
                "seconds_each": stage.seconds_each,
                "source": stage.source,
            }
            for stage in self._plan.stages
        ]
        return result_frame(rows, "stage", ("distinct", "in_store"), ())

    def to_mapping(self) -> dict[str, Any]:
        """Return what `namd study plan --json` prints."""
        return self._plan.to_mapping() | {"cohort_built": self.cohort_built}

    def __repr__(self) -> str:
        ending = f", refused: {self.refused}" if self.refused else ""
        return f"StudyPlan({self.study}: {self.trials} trials{ending})"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            "trials": self.trials,
            "arms": ", ".join(self._plan.arms) or "a search",
            "device hours": f"{self.device_hours:.2f}",
        }
        if self._plan.unknown:
            facts["cost unknown"] = ", ".join(self._plan.unknown)
        if self.refused:
            facts["refused"] = self.refused
        if not self.cohort_built:
            facts["cohort"] = not_built(self._cohort)
        return card_html(f"Study plan: {self.study}", (), facts, self.stages._repr_html_())


def plan_study(study: StudyLike, cohort: CohortLike | None, store: str | Path | None) -> StudyPlan:
    """Return what a study will run on this machine and cost; nothing is built or written.

    Raises InputError if the study, the cohort or the store cannot be used.
    """
    spec, url, configurator = prepared(study, store)
    view = past(url, spec.name)
    folder = cohort_of(spec, url, cohort, configurator, view, build=False)
    built = folder.exists()
    made = planning.make_study_plan(
        spec,
        configurator,
        this_machine(),
        cohort=folder,
        store=view_store(url),
        view=view,
        cohort_digest=None if built else stand_in(folder),
    )
    return StudyPlan(spec.name, built, made, folder)


def prepared(study: StudyLike, store: str | Path | None) -> tuple[StudySpec, str, Configurator]:
    """Return a checked study, its store and what configures its trials. Raises InputError."""
    spec = parse_study(study) if isinstance(study, Mapping) else read_study(local_path(study))
    configurator = Configurator(spec)
    configurator.check()
    configurator.check_measured()
    return spec, store_url(None if store is None else place(str(store)), spec), configurator


def cohort_of(
    spec: StudySpec,
    url: str,
    given: CohortLike | None,
    configurator: Configurator,
    view: StudyView | None,
    *,
    build: bool,
) -> Path:
    """Return the folder of a study's cohort: the caller's, the file's, or the last run's.

    Raises InputError if none is named, or if it cannot be used.
    """
    recorded = None if view is None else view.about.get("cohort")
    chosen = given if given is not None else spec.base.given("cohort") or recorded
    if chosen is None:
        raise InputError("no cohort: name it with cohort=, or in the study's base.cohort")
    if "://" in url and isinstance(chosen, str) and phantom_named(chosen) is not None:
        raise InputError(
            f"cohort {chosen}: it is built beside a local store; build it first with "
            "namd.build_phantom(folder) and name that folder with cohort="
        )
    return cohort_folder(chosen, Path(url), configurator.demands(), build=build).absolute()
