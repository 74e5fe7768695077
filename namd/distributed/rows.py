"""A finished run's rows, formed once and recorded, and the metrics that a trial completes with."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.pipeline.graph import Plan
from namd.pipeline.launcher import StageResult
from namd.pipeline.run import RunResult, Tabulate, record, rows_of, run_key
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Artifact, Store


def run_values(
    configuration: RunConfiguration,
    plan: Plan,
    cohort: Path,
    store: Store,
    tabulate: Tabulate,
) -> dict[str, Any]:
    """Return the metrics of a run whose artifacts all exist, by name, with the run's key.

    A recorded run is read; otherwise its rows are formed and recorded.

    Raises InputError if an artifact was removed meanwhile, or the run's record is damaged.
    """
    key = run_key(configuration, plan)
    recorded = store.run_record(key)
    if recorded is not None and "rows" in recorded:
        return values_of(rows_of(recorded), configuration.method.name, key)
    artifacts = {node.label: _artifact(store, node.stage.name, node.key) for node in plan.nodes}
    stages = [
        StageResult(
            node.stage.recorded,
            node.key,
            True,
            float(artifacts[node.label].manifest()["wall_seconds"]),
        )
        for node in plan.nodes
    ]
    table = tabulate(configuration, cohort, artifacts)
    record(store, configuration, RunResult(key, stages, table, artifacts), cohort)
    return values_of(table.rows, configuration.method.name, key)


def values_of(rows: Sequence[Mapping[str, Any]], method: str, key: str) -> dict[str, Any]:
    """Return the method's own row as flat numbers, under the names of a study's table.

    An interval is reduced to its point estimate.
    """
    own = [row for row in rows if row.get("row") == method] or list(rows[-1:])
    values: dict[str, Any] = {"run": key}
    for row in own:
        for name, value in (*row.items(), *_diameter_metrics(row.get("diameter"))):
            number = value.get("mean", value.get("value")) if isinstance(value, Mapping) else value
            if isinstance(number, int | float) and not isinstance(number, bool):
                # JSON has no NaN; metrics that could not be measured are left out.
                values |= {name: number} if math.isfinite(number) else {}
    return values


def _diameter_metrics(calibration: object) -> Iterator[tuple[str, Any]]:
    """Yield what a row says of its drawn diameters, measured by one rule on both images."""
    by_rule = (calibration.get("rule") or {}) if isinstance(calibration, Mapping) else {}
    for name in ("crps_mm", "coverage"):
        yield f"diameter_{name}", by_rule.get(name)


def _artifact(store: Store, stage: str, key: str) -> Artifact:
    artifact = store.find(stage, key)
    if artifact is None:
        raise InputError(f"{stage}/{key[:12]}: removed from the store during the study")
    return artifact
