"""Studies as Python sees them: planned, run, and read from their ledgers."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.api import study_report
from namd.api.frames import ResultFrame, card_html, result_frame
from namd.api.runs import CohortLike
from namd.api.study_plan import StudyLike, StudyPlan, cohort_of, plan_study, prepared
from namd.config.errors import InputError
from namd.config.places import local_path, place
from namd.ledger.view import StudyView
from namd.pipeline.store import open_store
from namd.study.opening import (
    Ledger,
    find_study,
    open_studies,
    past,
    read_whole,
    readable,
    store_url,
)
from namd.study.reporting import SilentStudyReporter, StudyReporter
from namd.study.warm_start import find_earlier, take_over

if TYPE_CHECKING:
    from analysis.study_report import Report

INTERVAL = ("low", "high")


class Study:
    """A study that was started, as its ledger and the stored scores have it.

    What was read stays as it was; `Study.open` again sees what came later.

    Attributes:
        name: Its name.
        store: Absolute folder or URL of its store.
    """

    def __init__(self, ledger: Ledger, cohort: Path | None = None) -> None:
        self.name = ledger.name
        self.store = ledger.url
        self._ledger = ledger
        self._cohort = cohort

    @classmethod
    def open(
        cls,
        name: str,
        store: str | Path | None = None,
        *,
        cohort: str | Path | None = None,
    ) -> "Study":
        """Return a study of a store, running or over.

        Args:
            name: Its name (`namd study list` lists them).
            store: Folder or URL; None: `$NAMD_STORE`.
            cohort: Where the cases lie; None: where the ledger, the study file or the store say.

        Raises:
            InputError: There is no such store or study.
        """
        given = None if store is None else place(str(store))
        found = find_study(store_url(given), name)
        return cls(found, None if cohort is None else local_path(cohort))

    @classmethod
    def plan(
        cls,
        study: StudyLike,
        *,
        cohort: CohortLike | None = None,
        store: str | Path | None = None,
    ) -> StudyPlan:
        """Return what a study will run on this machine and cost; nothing is built or written.

        Args:
            study: A study file, or its contents.
            cohort: As `namd.run` takes it; None: the study's own.
            store: Folder or URL; None: the study's own, then `$NAMD_STORE`.

        Raises:
            InputError: The study, the cohort or the store cannot be used.
        """
        return plan_study(study, cohort, store)

    @classmethod
    def run(
        cls,
        study: StudyLike,
        *,
        cohort: CohortLike | None = None,
        store: str | Path | None = None,
        address: str | None = None,
        warm_from: Sequence[str] = (),
        resume: bool = False,
        retry_failed: bool = False,
        reporter: StudyReporter | None = None,
    ) -> "Study":
        """Run a study to its end on Ray; what the store has is not built again.

        Args:
            study: A study file, or its contents.
            cohort: As `namd.run` takes it; None: the study's own.
            store: Folder or URL, made if absent; None: the study's own, then `$NAMD_STORE`.
            address: None: Ray is started on this machine; `auto` or `host:port`: it is joined.
            warm_from: Earlier studies of the store whose trials a new search starts from.
            resume: Continue a study that was started before.
            retry_failed: Try its failed trials again, which resumes it as well.
            reporter: Receives progress; None: silent.

        Returns:
            The study, over.

        Raises:
            InputError: The study cannot run as it is, or was started before without `resume`.
            StageError: Store or ledger failed; `resume` continues.
            SystemExit: 143 after SIGTERM; `resume` continues.
        """
        spec, url, configurator = prepared(study, store)
        open_store(url)
        reporter = reporter or SilentStudyReporter()
        storage, names = open_studies(url)
        earlier = find_earlier(Ledger(url, spec.name, storage), spec, names, warm_from)
        folder = cohort_of(spec, url, cohort, configurator, past(url, spec.name), build=True)
        warm = take_over(earlier, spec, configurator.base(), folder, reporter.note)
        from namd.distributed.driver import run_study

        run_study(
            spec,
            cohort=folder.absolute(),
            store_url=url,
            address=address,
            resume=resume or retry_failed,
            retry_failed=retry_failed,
            warm=warm,
            reporter=reporter,
        )
        return cls(find_study(url, spec.name), folder.absolute())

    @cached_property
    def view(self) -> StudyView:
        """All that the ledger says. Raises InputError if a record is damaged."""
        return read_whole(self._ledger)

    @property
    def is_search(self) -> bool:
        """Whether it is a search; else it is an ablation."""
        return bool(self.view.specification.get("search"))

    @property
    def simulated(self) -> bool | None:
        """Whether labels or follow-ups are simulated; None if no cohort was found."""
        return self._report.table.simulated

    @property
    def banner(self) -> list[str]:
        """Lines to read before any number of it."""
        from analysis.study_report import banner_lines

        return banner_lines(self._report)

    def trials_dataframe(self) -> ResultFrame:
        """Return one row per trial, oldest first.

        Columns: `arm`, `proposal`, `seed`, `state`, `attempt`, `reason`, `device_seconds` (spent
        on stages that it built), `values.<metric>` of completed trials, `params.<path>` of what
        the trial sets.
        """
        rows = [
            {
                "trial": trial.trial,
                "arm": trial.body.get("arm"),
                "proposal": trial.body.get("proposal"),
                "seed": trial.body.get("seed"),
                "state": trial.state,
                "attempt": trial.attempt,
                "reason": trial.reason,
                "device_seconds": sum(s.device_seconds for s in trial.stages if not s.cached),
                "values": dict(trial.values),
                **{f"params.{path}": v for path, v in (trial.body.get("overrides") or {}).items()},
            }
            for trial in self.view.trials.values()
        ]
        first = ("arm", "proposal", "seed", "state", "attempt", "reason", "device_seconds")
        for row in rows:
            if not row["values"]:
                del row["values"]
        return result_frame(rows, "trial", first, self.banner)

    def arms(self) -> ResultFrame:
        """Return one row per arm (of a search: per confirmed winner).

        Columns: `seeds` completed of `seeds_planned`, `finished`; per metric its mean over seeds,
        `<metric>_low`, `<metric>_high` (95%, over patients and seeds); its paired difference to
        the arm `full` as `<metric>_difference`, with `_low`, `_high` and the Holm-corrected `_p`.
        """
        table = self._report.table
        rows = []
        for arm in table.rows:
            row = {name: arm[name] for name in ("arm", "seeds", "seeds_planned", "finished")}
            for metric in table.metrics:
                row |= _estimate(metric, arm.get(metric))
                row |= _estimate(f"{metric}_difference", arm["differences"].get(metric))
            rows.append(row)
        first = ("seeds", "seeds_planned", "finished")
        return result_frame(rows, "arm", first, self.banner)

    def effects(self) -> ResultFrame:
        """Return one row per effect of a toggle or interaction of two; none without a design.

        Columns: `shows` (what the effect stands for), `missing` (why there is no estimate), and
        per metric its mean, `_low`, `_high` and the Holm-corrected `_p`.
        """
        table = self._report.table
        rows = []
        for effect in table.effects:
            row = {name: effect[name] for name in ("effect", "shows", "missing")}
            for metric, estimate in effect["estimates"].items():
                row |= _estimate(metric, estimate)
            rows.append(row)
        return result_frame(rows, "effect", ("shows", "missing"), self.banner)

    def best(self) -> ResultFrame:
        """Return a search's winner, or its Pareto front: one row per proposal.

        Columns: `search.<metric>`, by which it was chosen and so too good; `confirmed.<metric>`,
        the same on fresh training seeds; `params.<path>` of what it sets.

        Raises:
            InputError: The study is an ablation.
        """
        search = self._report.search
        if search is None:
            raise InputError(f"study {self.name} is an ablation: it has arms(), and no best one")
        rows = [
            {
                "proposal": winner["proposal"],
                **{f"search.{metric}": value for metric, value in winner["search"].items()},
                **{
                    f"confirmed.{metric}": estimate["mean"]
                    for metric, estimate in (winner["confirmed"] or {}).items()
                },
                **{f"params.{path}": value for path, value in winner["overrides"].items()},
            }
            for winner in search.winners
        ]
        return result_frame(rows, "proposal", (), self.banner)

    def report(self, out: str | Path) -> Path:
        """Write HTML, Markdown, CSV and figures to a folder; return the HTML's path.

        Raises InputError if the folder cannot be written.
        """
        return study_report.write_pages(self._report, local_path(out))

    def publish(self, *, online: bool = False, out: str | Path | None = None) -> dict[str, Any]:
        """Write the study to Weights & Biases files, or to its server.

        Args:
            online: Whether to send it; that needs a key.
            out: Gets a folder `wandb`; None: `$WANDB_DIR`, else beside the ledger.

        Returns:
            `study`, `records`, `mode` and `folder`.

        Raises:
            InputError: There is no key, or W&B is switched off.
        """
        from namd.api.publishing import publish_study

        folder = None if out is None else local_path(out)
        return publish_study(self.store, self.name, "online" if online else None, folder)

    @cached_property
    def _report(self) -> "Report":
        with readable(self.store):
            return study_report.read_report(self._ledger.storage, self.view, self._cohort)

    def __repr__(self) -> str:
        states = ", ".join(f"{n} {state}" for state, n in self.view.counts().items() if n)
        return f"Study({self.name} in {self.store}: {states or 'no trial yet'})"

    def _repr_html_(self) -> str:
        counts = {state: number for state, number in self.view.counts().items() if number}
        facts = {"store": self.store, "ended": self.view.ended or "open", **counts}
        question = str(self.view.specification.get("question") or "")
        found = self.best() if self.is_search else self.arms()
        found.attrs.clear()
        title = f"{self.name}: {question}" if question else self.name
        return card_html(title, self.banner, facts, found._repr_html_())


def _estimate(name: str, estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an estimate's mean, interval and p as columns; None if there is none."""
    row = {name: (estimate or {}).get("mean")}
    row |= {f"{name}_{end}": (estimate or {}).get(end) for end in INTERVAL}
    if estimate is not None and "p_holm" in estimate:
        row[f"{name}_p"] = estimate["p_holm"]
    return row
