"""The picture of one prediction: baseline, draws, their mean and spread."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from namd.statistics.notices import RESEARCH_ONLY, SIMULATED_RUN

mpl.use("Agg")
import matplotlib.pyplot as plt

SHOWN_DRAWS = 5

_SIMULATED = f"\n{SIMULATED_RUN}.".replace("; ", ";\n")


def prediction_figure(
    baseline: npt.NDArray[np.floating],
    draws: npt.NDArray[np.floating],
    probabilities: npt.NDArray[np.floating],
    path: Path,
    *,
    size_mm: float,
    simulated: bool = False,
) -> None:
    """Write a PNG.

    Args:
        baseline: (H, W) in [-1, 1].
        draws: (K, H, W) in [-1, 1].
        probabilities: The judge's, per draw.
        path: The PNG.
        size_mm: Width of the images.
        simulated: Whether the training data was drawn by a program.
    """
    shown = min(SHOWN_DRAWS, len(draws))
    images = [baseline, *draws[:shown], draws.mean(0)]
    titles = [
        "baseline",
        *(f"draw {k}\np {probabilities[k]:.2f}" for k in range(shown)),
        f"mean of {len(draws)} draws",
        "variance",
    ]
    height = 2.6 if simulated else 2.4
    figure, axes = plt.subplots(1, len(titles), figsize=(1.5 * len(titles), height))
    for place, image in zip(axes, images, strict=False):
        place.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes[-1].imshow(draws.var(0), cmap="magma", vmin=0, interpolation="nearest")
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, fontsize=8)
        place.set_xticks([])
        place.set_yticks([])
    figure.text(
        0.5,
        0.02,
        f"{size_mm:.0f} mm across; HU -1000...400; p: the judge's probability of malignancy. "
        f"{RESEARCH_ONLY}{_SIMULATED if simulated else ''}",
        ha="center",
        fontsize=7,
    )
    figure.tight_layout(rect=(0, 0.16 if simulated else 0.06, 1, 1), pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
