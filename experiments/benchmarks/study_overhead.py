"""What our driver costs: trials of a no-op stage through it, against bare Ray Tune, in one run.

Both sides run the same trials (as many, with the same concurrency, the same searcher settings and
`reuse_actors`) on one Ray cluster, one after the other, in turns. Bare Tune calls a function that
reports once. Ours plans each trial, leases, builds, publishes and records a stage of its own, and
forms its rows: nothing is shared between trials.

Run: python -m experiments.benchmarks.study_overhead [--trials 200] [--concurrency 4] [--turns 1]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import optuna
import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from experiments.benchmarks.noop_method import METHODS, NAME, OneProcess, tabulate
from namd.distributed.driver import quiet_tune, run_study
from namd.distributed.work import Parts
from namd.study.reporting import SilentStudyReporter
from namd.study.spec import StudySpec, parse_study


def study(trials: int, concurrency: int) -> StudySpec:
    """Return a search of as many trials."""
    return parse_study(
        {
            "name": NAME,
            "base": {"method": NAME},
            "search": {
                "sampler": "random",
                "order": "asynchronous",
                "num_trials": trials,
                "confirm_seeds": 1,
                "objective": {"metric": "auroc"},
                "space": {"knob.x": {"uniform": [0.0, 1.0]}},
            },
            "resources": {"concurrency": concurrency, "default": {"cpus": 1.0}},
        }
    )


def ours(trials: int, concurrency: int) -> float:
    """Return the seconds of a study, from planning to the closed ledger."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        view = run_study(
            # The winner's confirmation is a trial too.
            study(trials - 1, concurrency - 1),
            cohort=Path(folder),
            store_url=f"{folder}/store",
            address=None,
            reporter=SilentStudyReporter(),
            methods=METHODS,
            preset={},
            parts=Parts(tabulate, OneProcess),
        )
        seconds = time.perf_counter() - started
    if view.counts()["completed"] != trials or set(view.executions().values()) != {1}:
        raise SystemExit(f"the study went wrong: {view.counts()}")
    return seconds


class BareSearcher(Searcher):
    """Optuna's random sampler through ask and tell, with nothing written down."""

    def __init__(self) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize"
        )
        self._trials: dict[str, optuna.Trial] = {}

    def __getstate__(self) -> dict[str, object]:
        """Nothing to restore."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, float]:
        """Ask."""
        trial = self._trials[trial_id] = self._study.ask()
        return {"x": trial.suggest_float("x", 0.0, 1.0)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, float] | None = None, error: bool = False
    ) -> None:
        """Hand the value to Optuna."""
        del error
        self._study.tell(self._trials[trial_id], (result or {})["auroc"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def report_once(config: dict[str, float]) -> None:
    """Do nothing, and say so."""
    tune.report({"auroc": config["x"]})


def bare(trials: int, concurrency: int) -> float:
    """Return the seconds of as many trials through Ray Tune alone."""
    quiet_tune()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        results = tune.Tuner(
            tune.with_resources(report_once, tune.PlacementGroupFactory([{"namd_driver": 1.0}])),
            tune_config=tune.TuneConfig(
                num_samples=trials,
                search_alg=ConcurrencyLimiter(BareSearcher(), max_concurrent=concurrency),
                reuse_actors=True,
                metric="auroc",
                mode="max",
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        seconds = time.perf_counter() - started
    if len(results) != trials or results.num_errors:
        raise SystemExit("bare Tune went wrong")
    return seconds


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=4, help="trials under way at once")
    parser.add_argument("--turns", type=int, default=1)
    arguments = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=4,
        resources={"namd_driver": 1000},
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200_000_000,
    )
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    try:
        for _ in range(arguments.turns):
            times["bare"].append(bare(arguments.trials, arguments.concurrency))
            times["ours"].append(ours(arguments.trials, arguments.concurrency))
    finally:
        ray.shutdown()
    medians = {side: statistics.median(values) for side, values in times.items()}
    result = {
        "trials": arguments.trials,
        "concurrency": arguments.concurrency,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        **{f"{side}_s": [round(v, 2) for v in values] for side, values in times.items()},
        "ratio": round(medians["ours"] / medians["bare"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
