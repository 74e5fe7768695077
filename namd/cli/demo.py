"""`namd demo`: a small ablation from phantom cohort to report, on this machine."""

import argparse
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from namd.api.demo import draw_arms, run_demo
from namd.cli.demo_estimate import demo_seconds, slowness_of
from namd.cli.output import (
    add_json_option,
    answer,
    duration,
    echo,
    terminal_width,
    wrapped,
)
from namd.config.places import local_path
from namd.data.named_cohort import WORD

if TYPE_CHECKING:
    from namd.study.spec import StudySpec

STUDY_FILE = "demo.yaml"
FAILED = 1
WARNING = (
    "Preset small trains far too briefly for any conclusion: the demo shows the path, and its "
    "numbers mean nothing."
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "demo", help="phantom cohort, a small alignment ablation on this machine, and its report"
    )
    parser.add_argument(
        "--out",
        type=local_path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="default: runs/demo",
    )
    add_json_option(parser)
    parser.set_defaults(func=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Build the phantom cohort, run demo.yaml on local Ray, write pictures and report.

    A second call finds everything in the store and trains nothing; one that was interrupted is
    continued. Returns 1 where a trial failed.
    """
    from analysis.terminal_text import to_text
    from namd.api.study_report import write_study_report
    from namd.cli.named_cohorts import find_cohort
    from namd.cli.study_progress import study_reporter
    from namd.pipeline.store import open_store

    began = time.monotonic()
    out = arguments.out.absolute()
    spec = demo_study()
    store = str(out / "store")
    open_store(store)
    echo(wrapped(f"namd demo: everything here is simulated. {WARNING}"))
    if not (out / "store" / "studies").exists():
        echo(first_estimate())
    cohort = find_cohort(spec.base.cohort or WORD, Path(store)).absolute()
    view = run_demo(spec, cohort, store, study_reporter, echo)
    pictures = draw_arms(spec, view, cohort, store, out)
    page, report = write_study_report(
        store, spec.name, out / "report", cohort, pictures, (WARNING,)
    )
    echo(f"done in {duration(time.monotonic() - began)}")
    value = {
        "study": spec.name,
        "trials": view.counts(),
        "arms": _rows(store, spec.name, cohort),
        "html": str(page),
        "pictures": [str(path) for path in pictures.values()],
    }
    shown = "\n".join(f"picture {path}" for path in pictures.values())
    last = wrapped(f"{WARNING} Research use only.")
    table = to_text(report, terminal_width())
    answer(arguments, value, f"{table}\n\n{shown}\nreport {page}\n{last}")
    return FAILED if view.counts()["failed"] or view.counts()["diverged"] else 0


def first_estimate() -> str:
    """Return how long a demo from nothing takes here, in words."""
    from namd.cli.study_plan import cluster_at

    cores = cluster_at(None).cpus
    seconds = demo_seconds(cores, slowness_of(int(cores)))
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} min on {cores:g} cores, as busy as this machine is now"


def demo_study() -> "StudySpec":
    """Return the study that the demo runs, which lies beside this file."""
    from namd.study.spec import read_study

    with resources.as_file(resources.files("namd.cli") / STUDY_FILE) as path:
        return read_study(path)


def _rows(store: str, study: str, cohort: Path) -> list[dict[str, object]]:
    from analysis.study_table import arm_rows

    return arm_rows(store, study, cohort)
