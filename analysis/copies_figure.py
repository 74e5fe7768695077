"""The picture of copies: the images that are nearest to a train crop, and that crop."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")
import matplotlib.pyplot as plt

GREY = {"cmap": "gray", "vmin": -1, "vmax": 1, "interpolation": "nearest"}


@dataclass(frozen=True)
class Pair:
    """An image and its nearest train crop; images are (H, W) in [-1, 1].

    Attributes:
        distance: Between the two.
        image: A draw, or a real follow-up.
        train: The train crop, turned as it is nearest.
        baseline: The image's own.
    """

    distance: float
    image: npt.NDArray[np.floating]
    train: npt.NDArray[np.floating]
    baseline: npt.NDArray[np.floating]


def copies_figure(
    draws: list[Pair], real: list[Pair], path: Path, *, threshold: float, simulated: bool
) -> None:
    """Write a PNG: on the left the nearest draws, on the right the nearest real follow-ups.

    Args:
        draws: Nearest first.
        real: Nearest first.
        path: The PNG.
        threshold: Distance up to which a draw counts as a copy.
        simulated: Whether a program made the follow-ups.

    Raises ValueError without a pair to show.
    """
    if not draws and not real:
        raise ValueError("no pair to show")
    followup = "follow-up\n(simulated)" if simulated else "follow-up\n(real)"
    count = max(len(draws), len(real))
    figure, axes = plt.subplots(
        count,
        7,
        figsize=(9.2, 1.42 * count + 0.8),
        squeeze=False,
        width_ratios=[1] * 3 + [0.3] + [1] * 3,
    )
    for place in axes.flat:
        place.axis("off")
    for first, pairs, title, near in (
        (0, draws, "draw", "copy"),
        (4, real, followup, "nearest 1%"),
    ):
        for row, pair in zip(axes, pairs, strict=False):
            images = (pair.baseline, pair.image, pair.train)
            for place, image in zip(row[first:], images, strict=False):
                place.imshow(image, **GREY)
            word = near if pair.distance <= threshold else "distance"
            row[first + 2].set_title(f"{word} {pair.distance:.3f}", fontsize=7, pad=2)
        names = ("own baseline", title, "nearest train crop")
        for place, name in zip(axes[0][first:], names, strict=False):
            place.text(0.5, 1.2, name, transform=place.transAxes, ha="center", fontsize=8)
    figure.text(
        0.5,
        0.005,
        f"As near as the nearest 1% of the real follow-ups ({threshold:.3f}) counts as a copy. "
        "Research use only.",
        ha="center",
        fontsize=7,
    )
    figure.tight_layout(rect=(0, 0.03, 1, 0.97), pad=0.4)
    figure.savefig(path, dpi=110)
    plt.close(figure)
