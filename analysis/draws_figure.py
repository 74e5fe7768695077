"""The picture of drawn follow-ups: baseline, truth, draws and their spread."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")
import matplotlib.pyplot as plt

SHOWN_DRAWS = 4


@dataclass(frozen=True)
class DrawnCase:
    """One case to show; images are (H, W) in [-1, 1].

    Attributes:
        title: Two short lines at most, without identifiers.
        baseline: Real (or rendered) baseline.
        followup: Real (or simulated) follow-up.
        draws: Generated follow-ups, (K, H, W).
    """

    title: str
    baseline: npt.NDArray[np.floating]
    followup: npt.NDArray[np.floating]
    draws: npt.NDArray[np.floating]


def draws_figure(
    cases: list[DrawnCase], path: Path, *, rendered: bool, simulated: bool, size_mm: float
) -> None:
    """Write a PNG with one row per case: baseline, follow-up, draws, mean and spread.

    Args:
        cases: The cases to show.
        path: The PNG.
        rendered: Whether a program made the baselines.
        simulated: Whether a program made the follow-ups.
        size_mm: Width of an image.

    Raises ValueError without a case to show.
    """
    if not cases:
        raise ValueError("no case to show")
    shown = min(SHOWN_DRAWS, len(cases[0].draws))
    followup = "follow-up\n(simulated)" if simulated else "follow-up\n(real)"
    baseline = "baseline\n(rendered)" if rendered else "baseline\n(real)"
    titles = [baseline, followup, *(f"draw {k}" for k in range(shown)), "mean of draws", "spread"]
    figure, axes = plt.subplots(
        len(cases),
        len(titles),
        figsize=(1.35 * len(titles), 1.42 * len(cases) + 0.5),
        squeeze=False,
    )
    top = max(float(case.draws.std(0).max()) for case in cases) or 1.0
    for row, case in zip(axes, cases, strict=True):
        grey = [case.baseline, case.followup, *case.draws[:shown], case.draws.mean(0)]
        for place, image in zip(row, grey, strict=False):
            place.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        row[-1].imshow(case.draws.std(0), cmap="magma", vmin=0, vmax=top, interpolation="nearest")
        row[0].set_ylabel(case.title, fontsize=7)
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    for place, title in zip(axes[0], titles, strict=True):
        place.set_title(title, fontsize=8)
    figure.text(
        0.5,
        0.005,
        f"{size_mm:.0f} mm across; HU -1000...400; spread: standard deviation over all draws. "
        "Research use only.",
        ha="center",
        fontsize=7,
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1), pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
