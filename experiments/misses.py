"""Coverage, small nodules, quintiles and share of the ideal sampler, per arm of a study.

Builds what the store lacks in this process, one trial after the other and seed by seed, under the
keys that `namd study run` would give them; of a study that has run it only forms the table. No
trial is started after `--until`; those that are missing are named.

    python -m experiments.misses experiments/base-misses.yaml --cohort C --store S
        [--arms full residual]
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from namd.config.places import local_path
from namd.evaluate.table import IDEAL
from namd.pipeline.run import run
from namd.pipeline.store import open_store
from namd.study.spec import read_study
from namd.study.trials import Configurator, ablation_trials

METHOD = "namd"
ABSENT = "-"


@dataclass(frozen=True)
class Misses:
    """What one trial comes to, beside the ideal sampler on the same cases; None: not measured.

    Attributes:
        share: Of the ideal sampler's gain in AUROC, all draws averaged.
        coverage: Of the 90% intervals of drawn diameters.
        ideal_coverage: The ideal sampler's.
        crps_mm: Of the diameters.
        bias_mm: Mean of drawn minus true diameter.
        small_bias_mm: Of nodules below 6 mm at baseline.
        small_unmeasured: Share of their draws on which no nodule stands out.
        quintiles: Mean judge probability per quintile of p minus the ideal sampler's.
    """

    share: float | None
    coverage: float | None
    ideal_coverage: float | None
    crps_mm: float | None
    bias_mm: float | None
    small_bias_mm: float | None
    small_unmeasured: float | None
    quintiles: tuple[float, ...] = ()

    @property
    def worst_quintile(self) -> float | None:
        """The difference furthest from 0, with its sign."""
        return max(self.quintiles, key=abs) if self.quintiles else None


def misses_of(rows: Sequence[Mapping[str, Any]]) -> Misses:
    """Read a trial's row and the ideal sampler's from its result table."""
    found = {row["row"]: row for row in rows}
    row, ideal = found[METHOD], found.get(IDEAL, {})
    rule, small = (_part(row, "diameter", name) for name in ("rule", "small"))
    quintiles = row.get("quintiles") or ()
    return Misses(
        share=_part(row, "share_of_ideal").get("value"),
        coverage=_part(rule, "coverage").get("value"),
        ideal_coverage=_part(ideal, "diameter", "rule", "coverage").get("value"),
        crps_mm=_part(rule, "crps_mm").get("value"),
        bias_mm=rule.get("bias_mm"),
        small_bias_mm=_part(small, "bias_mm").get("value"),
        small_unmeasured=small.get("unmeasured"),
        quintiles=tuple(q["mean"] - q["ideal"] for q in quintiles if q["ideal"] is not None),
    )


def summary(measured: Mapping[str, Mapping[int, Misses]]) -> list[dict[str, Any]]:
    """Return one mapping per arm: means over seeds, and the deviation (ddof 1) of the share."""
    return [
        {
            "arm": arm,
            "seeds": sorted(by_seed),
            "share": _mean([m.share for m in by_seed.values()]),
            "share_std": _deviation([m.share for m in by_seed.values()]),
            "coverage": _mean([m.coverage for m in by_seed.values()]),
            "ideal_coverage": _mean([m.ideal_coverage for m in by_seed.values()]),
            "crps_mm": _mean([m.crps_mm for m in by_seed.values()]),
            "bias_mm": _mean([m.bias_mm for m in by_seed.values()]),
            "small_bias_mm": _mean([m.small_bias_mm for m in by_seed.values()]),
            "small_unmeasured": _mean([m.small_unmeasured for m in by_seed.values()]),
            "worst_quintile": _worst([m.worst_quintile for m in by_seed.values()]),
            "each": {seed: asdict(m) for seed, m in sorted(by_seed.items())},
        }
        for arm, by_seed in measured.items()
        if by_seed
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the summary as Markdown."""
    header = ["arm", "seeds", "share", "deviation over seeds", "coverage (ideal)", "CRPS mm"]
    header += ["bias mm", "bias mm, < 6 mm", "unmeasured, < 6 mm", "worst quintile"]
    lines = [header, ["--"] * len(header)]
    for row in rows:
        coverage = f"{_shown(row['coverage'])} ({_shown(row['ideal_coverage'])})"
        measured = ("crps_mm", "bias_mm", "small_bias_mm", "small_unmeasured", "worst_quintile")
        lines.append(
            [
                row["arm"],
                ", ".join(str(seed) for seed in row["seeds"]),
                _shown(row["share"]),
                _shown(row["share_std"]),
                coverage,
                *(_shown(row[name], 3 if name == "worst_quintile" else 2) for name in measured),
            ]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Build, measure and print; exit 1 if a trial is missing."""
    options = _options(arguments)
    spec = read_study(options.study)
    trials = ablation_trials(spec, Configurator(spec))
    wanted = [t for t in trials if not options.arms or t.arm in options.arms]
    store = open_store(options.store)
    measured: dict[str, dict[int, Misses]] = {t.arm: {} for t in wanted}
    for trial in wanted:
        if options.until and time.strftime("%H:%M") >= options.until:
            break
        began = time.monotonic()
        result = run(trial.configuration, options.cohort, store)
        measured[trial.arm][trial.seed] = misses_of(result.rows)
        sys.stderr.write(f"{trial.arm}, seed {trial.seed}: {time.monotonic() - began:.0f} s\n")
    rows = summary(measured)
    sys.stdout.write(table(rows))
    missing = [f"{t.arm}/{t.seed}" for t in wanted if t.seed not in measured[t.arm]]
    if missing:
        sys.stderr.write(f"missing: {', '.join(missing)}\n")
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
    return 1 if missing else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--cohort", type=local_path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--arms", nargs="+", default=[])
    parser.add_argument("--until", help="start no trial after this time of day, HH:MM")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    return parser.parse_args(arguments)


def _part(mapping: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for name in path:
        mapping = mapping.get(name) or {}
    return mapping


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return float(np.mean(known)) if known else None


def _deviation(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _worst(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return max(known, key=abs) if known else None


def _shown(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
