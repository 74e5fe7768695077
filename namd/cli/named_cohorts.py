"""The cohort that a command's word names, with progress on stderr."""

from pathlib import Path
from typing import TYPE_CHECKING

from namd.cli.output import echo
from namd.data import named_cohort

if TYPE_CHECKING:
    from namd.data.settings import CohortDemands


def find_cohort(
    word: str, store: Path, demands: "CohortDemands | None" = None, build: bool = True
) -> Path:
    """Return a cohort's folder, with progress on stderr if a phantom is built.

    See `namd.data.named_cohort.find_cohort`.
    """
    from namd.cli.cohort import build_progress

    with build_progress() as stages:
        return named_cohort.find_cohort(word, store, demands, build, say=echo, stages=stages)
