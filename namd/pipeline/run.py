"""One configuration carried through all its stages to rows; the only entry that studies need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from namd.config.fingerprint import fingerprint
from namd.config.parsing import identity_mapping, to_mapping
from namd.config.threads import fixed_threads
from namd.methods.base import World, num_threads
from namd.pipeline import provenance
from namd.pipeline.digests import DigestCache
from namd.pipeline.graph import Fingerprint, Plan, make_plan
from namd.pipeline.launcher import Launcher, StageResult
from namd.pipeline.reporting import Reporter, SilentReporter
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Artifact, Store
from namd.storage.errors import StoreError
from namd.storage.run_records import RUNS, RunDamaged, encode_run, run_place
from namd.storage.stage_names import StageName

"""Field of a record: the digest of all others."""

_OLD_OF_MEAN = "_mean_of_draws"
_OLD_GAP = f"gap_recovered{_OLD_OF_MEAN}"


@dataclass(frozen=True)
class Rows:
    """What a run comes to.

    Attributes:
        rows: One mapping per row of the table, JSON-able.
        gap_recovered: Share of the gap in AUROC between real baseline and real follow-up that
            the method recovers, by the probability averaged over draws; None if unknown.
        about: What else belongs to the table: cases, split, notes. JSON-able.
        text: The table for people; empty: none was made.
    """

    rows: Sequence[Mapping[str, Any]]
    gap_recovered: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


Tabulate = Callable[[RunConfiguration, Path, Mapping[str, Artifact]], Rows]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        run: Its key: the method, every stage key, and how the rows are formed.
        stages: How each node came, in order.
        table: What the run comes to.
        artifacts: The nodes' artifacts, by label.
    """

    run: str
    stages: Sequence[StageResult]
    table: Rows
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the table."""
        return self.table.rows

    def to_mapping(self) -> dict[str, Any]:
        """Return what `namd run --json` prints."""
        return {
            "run": self.run,
            "stages": [stage.to_mapping() for stage in self.stages],
            "rows": [dict(row) for row in self.rows],
            "gap_recovered": self.table.gap_recovered,
            "about": dict(self.table.about),
        }


def plan_run(
    configuration: RunConfiguration,
    cohort: Path,
    store: Store | None = None,
    cohort_digest: Fingerprint | None = None,
    *,
    provisional: bool = False,
) -> Plan:
    """Return the plan of a run. The store only lends its memory of digests.

    Raises InputError if weights are missing, unless a provisional plan will do.
    """
    return make_plan(
        configuration.stages(),
        configuration.config,
        cohort,
        digests=DigestCache() if store is None else store.digest_cache(),
        cohort_digest=cohort_digest,
        provisional=provisional,
    )


def run(
    configuration: RunConfiguration,
    cohort: Path,
    store: Store,
    reporter: Reporter | None = None,
    *,
    tabulate: Tabulate | None = None,
    world: Callable[[], World] | None = None,
    cohort_digest: Fingerprint | None = None,
) -> RunResult:
    """Carry a configuration through its stages, form its rows and record the run.

    Args:
        configuration: The method and its configuration.
        cohort: The cohort's folder.
        store: Holds what is there already, receives what is not.
        reporter: Called as things happen.
        tabulate: Forms rows from artifacts; None: the score table of `namd.evaluate`.
        world: The workers that carry the bodies; None: this process alone.
        cohort_digest: Replaces the cohort's own fingerprint.

    Raises:
        InputError: The cohort, the weights or the store cannot be used.
        StageError: A stage cannot go on.
    """
    plan = plan_run(configuration, cohort, store, cohort_digest)
    launcher = Launcher(store, cohort, reporter or SilentReporter(), world)
    stages, artifacts = launcher.build(plan)
    table = (tabulate or score_rows)(configuration, cohort, artifacts)
    result = RunResult(run_key(configuration, plan), stages, table, artifacts)
    record(store, configuration, result, cohort)
    return result


def run_key(configuration: RunConfiguration, plan: Plan) -> str:
    """Return the key of a run: same artifacts and same rule for rows, same key."""
    return fingerprint(
        {
            "method": configuration.method.name,
            "stages": {node.label: node.key for node in plan.nodes},
            "evaluate": identity_mapping(getattr(configuration.config, "evaluate", None)),
        }
    )


def record(
    store: Store,
    configuration: RunConfiguration,
    result: RunResult,
    cohort: Path | None = None,
) -> None:
    """Write down configuration, keys, rows and the crops' grid under `runs/<key>/`.

    The grid is what a prediction must bring a scan to; a run without a cohort's folder has none.
    """
    content = {
        **result.to_mapping(),
        "crops": _grid(cohort),
        "method": configuration.method.name,
        "preset": configuration.preset,
        "config": to_mapping(configuration.config),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": provenance.environment(),
    }
    store.backend.replace(run_place(result.run), encode_run(content))


def _grid(cohort: Path | None) -> dict[str, Any] | None:
    from namd.data.cohort import CARD_FILE, read_card

    if cohort is None or not (cohort / CARD_FILE).exists():
        return None
    card = read_card(cohort)
    return {name: card.get(name) for name in ("size", "spacing_mm")}


def recorded_runs(store: Store) -> dict[str, dict[str, Any]]:
    """Return the records of all runs, by key. Raises StoreError if one is damaged."""
    found, damaged = readable_runs(store)
    for line in damaged.values():
        raise StoreError(line)
    return found


def readable_runs(store: Store) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the records of runs by key, and by key what is wrong with the damaged ones."""
    found: dict[str, dict[str, Any]] = {}
    damaged: dict[str, str] = {}
    for key in store.backend.names(RUNS):
        try:
            recorded = store.run_record(key)
        except RunDamaged as error:
            damaged[key] = str(error)
        else:
            found |= {} if recorded is None else {key: _current(dict(recorded))}
    return found, damaged


def _current(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of any version under today's names."""
    if "rows" in record:
        record["rows"] = rows_of(record)
    record["stages"] = [_with_label(stage) for stage in record["stages"]]
    about = dict(record.get("about") or {})
    if _OLD_GAP in about:
        about["gap_recovered_per_draw"] = record.get("gap_recovered")
        record |= {"gap_recovered": about.pop(_OLD_GAP), "about": about}
    return record


def _with_label(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage of a record; earlier versions called its label `name` and said no more."""
    if "label" in stage:
        return dict(stage)
    label = str(stage["name"])
    return {"label": label, **dict(stage), **StageName.read({}, label).to_mapping()}


def rows_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a run's record, those of older versions under today's names."""
    return [_renamed(row) for row in record.get("rows") or ()]


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose plain names stand for the mean over draws.

    Records before rows had `auroc_per_draw` call it `auroc`, and `auroc` `auroc_mean_of_draws`.
    """
    names = {name.removesuffix(_OLD_OF_MEAN) for name in row if name.endswith(_OLD_OF_MEAN)}
    found: dict[str, Any] = {}
    for name, value in row.items():
        inner = _renamed(value) if name == "difference_to_baseline" and value else value
        if name.endswith(_OLD_OF_MEAN) and "row" in row and isinstance(value, Mapping):
            # An interval alone is now written like that of single draws, without a spread.
            inner = {"mean": value["value"], "std": None, "std_population": None} | dict(value)
            del inner["value"]
        found[f"{name}_per_draw" if name in names else name.removesuffix(_OLD_OF_MEAN)] = inner
    return found


def score_rows(
    configuration: RunConfiguration, cohort: Path, artifacts: Mapping[str, Artifact]
) -> Rows:
    """Form the rows from the `scores` artifacts through `namd.evaluate`."""
    from namd.evaluate.rendering import to_text
    from namd.pipeline.score_table import score_table

    with fixed_threads(num_threads(configuration.config)):
        table = score_table(configuration, cohort, artifacts)
    about = table.to_mapping()
    rows = about.pop("rows")
    own = {row["row"]: row for row in rows}.get(configuration.method.name, {})
    about["gap_recovered_per_draw"] = own.get("gap_recovered_per_draw")
    return Rows(rows, own.get("gap_recovered"), about, to_text(table))
