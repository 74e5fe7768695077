"""Copies: how near images come to crops that a model was trained on (cf. Dar et al. 2025).

Diffusion models reproduce patients they were trained on. Dar et al. find copies by the correlation
in an embedding that was learned without labels; here the embedding is fixed [ours], so that it is
the same for every method and knows no label: 16 x 16 means of the crop, less the mean of their
neighbourhood, whose correlation is that of the structures and not of lung against wall. A copy that
is turned as in training or shifted by a thirty-second of the crop keeps its distance.

How near is too near, real follow-ups say: they were not copied from the train split.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.data.intensity import to_unit
from namd.evaluate.settings import EvaluateSettings
from namd.statistics.resampling import patient_weights, percentile_interval

GRID = 16
"""Cells per side."""
NEIGHBOURHOOD = 5
"""Cells per side of the square whose mean is taken off."""
NEAREST_SHARE = 0.01
"""Share of the real follow-ups that count as copies, by which all others are counted."""
DISTANCES_FILE = "copies.parquet"
"""One line per image: row, case_id, k, distance, train_case, train_time and angle."""
BATCH = 256
QUERIES, REFERENCES = 256, 2048
"""Images and train crops of one block of the matrix product: it takes some 20 MB."""

Bounds = dict[str, float | None]


@dataclass(frozen=True)
class NearestTrain:
    """How near a row's images come to the train crops of other patients.

    A distance is 1 minus the correlation: 0 for a copy, 1 for images that have nothing in common.

    Attributes:
        cases: Cases with a distance.
        copies: Share of the images that are as near as the nearest hundredth of the real
            follow-ups, or nearer: value, low, high. A row of real images stands at 0.01.
        distance: Mean distance: value, low, high.
        real_distance: That of the real follow-ups.
        threshold: Distance of the nearest hundredth of the real follow-ups.
        real_cases: How many these are; below 100, the nearest one alone is the hundredth.
    """

    cases: int
    copies: Bounds
    distance: Bounds
    real_distance: Bounds
    threshold: float
    real_cases: int


def offsets(size: int) -> tuple[tuple[int, int], ...]:
    """Return the shifts in pixels, down and right, at which an image is compared; none first.

    A square of 3 x 3 with one in the middle of each of its quarters, so that of 64 pixels every
    shift by up to 2 is at most one pixel away.
    """
    step = size // 32
    steps = (0, -step, step) if step else (0,)
    halves = (-(step // 2), step // 2) if step > 1 else ()
    return tuple((down, right) for each in (steps, halves) for down in each for right in each)


def features(
    images: Float[Tensor, "N H W"], offset: tuple[int, int] = (0, 0)
) -> Float[Tensor, "N D"]:
    """Return vectors of length 1 whose products are correlations; zeros for an even image.

    Args:
        images: In [-1, 1].
        offset: Of the window, which leaves out a margin as wide as the largest offset.
    """
    size = images.shape[-1]
    margin = size // 32
    down, right = margin + offset[0], margin + offset[1]
    side = size - 2 * margin
    window = images[:, None, down : down + side, right : right + side].float()
    cells = nn.functional.adaptive_avg_pool2d(window, min(GRID, side))
    around = nn.functional.avg_pool2d(
        cells, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False
    )
    flat = (cells - around).flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-4, flat / length.clamp(min=1e-4), torch.zeros_like(flat))


def crop_features(crops: Num[np.ndarray, "N H W"]) -> Float[Tensor, "N D"]:
    """Return the features of crops in HU, batch by batch."""
    parts = [
        features(torch.from_numpy(np.ascontiguousarray(to_unit(crops[first : first + BATCH]))))
        for first in range(0, len(crops), BATCH)
    ]
    return torch.cat(parts)


def nearest(
    images: Float[Tensor, "Q H W"],
    references: Float[Tensor, "R D"],
    patients: Shaped[np.ndarray, " Q"],
    owners: Shaped[np.ndarray, " R"],
) -> tuple[Float[np.ndarray, " Q"], Num[np.ndarray, " Q"]]:
    """Return each image's distance to the nearest train crop of another patient, and its place.

    Exact, by blocks of matrix products: memory does not grow with the numbers. An image with no
    train crop of another patient has distance NaN and place -1.

    Args:
        images: In [-1, 1]; each is compared at every one of `offsets`.
        references: Features of the train crops.
        patients: Of the images.
        owners: Patients of the train crops.
    """
    codes, _ = pd.factorize(np.concatenate([patients, owners]).astype(str))
    mine, theirs = (
        torch.from_numpy(codes[: len(patients)]),
        torch.from_numpy(codes[len(patients) :]),
    )
    distance, place = [np.zeros(0)], [np.zeros(0, np.int64)]
    for first in range(0, len(images), QUERIES):
        block = slice(first, first + QUERIES)
        shifted = [features(images[block], each) for each in offsets(images.shape[-1])]
        best, found = _best(torch.stack(shifted), references, mine[block], theirs)
        distance.append((1 - best.double()).clamp(min=0).numpy())
        place.append(found.numpy())
    together = np.concatenate(distance)
    places = np.concatenate(place)
    together[places < 0] = np.nan
    return together, places


def _best(
    queries: Float[Tensor, "V Q D"],
    references: Float[Tensor, "R D"],
    mine: Num[Tensor, " Q"],
    theirs: Num[Tensor, " R"],
) -> tuple[Float[Tensor, " Q"], Num[Tensor, " Q"]]:
    """Return the largest product over versions and other patients' references, and its place."""
    count = queries.shape[1]
    best, place = torch.full((count,), -torch.inf), torch.full((count,), -1)
    for first in range(0, len(references), REFERENCES):
        block = slice(first, first + REFERENCES)
        product = (queries @ references[block].T).amax(dim=0)
        product[mine[:, None] == theirs[None, block]] = -torch.inf
        value, index = product.max(dim=1)
        better = value > best
        best, place = torch.where(better, value, best), torch.where(better, index + first, place)
    return best, place


def nearest_train(
    frame: pd.DataFrame, real: pd.DataFrame, cases: pd.DataFrame, settings: EvaluateSettings
) -> NearestTrain | None:
    """Return a row's copies, and their interval over patients.

    The threshold is drawn anew with the patients, so that the interval holds its uncertainty too.

    Args:
        frame: Distances of the row's images, one line per (case_id, k).
        real: Those of the real follow-ups.
        cases: case_id and patient_id of the evaluated cases.
        settings: Intervals and their resamples.

    None if either has no distance.
    """
    ours, theirs = _by_case(frame, cases), _by_case(real, cases)[:, 0]
    ours_known, known = np.isfinite(ours).all(axis=1), np.isfinite(theirs)
    if not ours_known.any() or not known.any():
        return None
    weights = patient_weights(
        cases["patient_id"].to_numpy(),
        settings.num_bootstrap,
        generator("bootstrap-patients", settings.bootstrap_seed),
    )
    everyone = np.concatenate([np.ones((len(cases), 1)), weights], axis=1)
    thresholds = nearest_hundredth(theirs[known], everyone[known])
    ours, own_weights = ours[ours_known], everyone[ours_known]
    shares = np.stack([_share_up_to(distances, thresholds) for distances in ours])
    return NearestTrain(
        cases=int(ours_known.sum()),
        copies=_interval(shares, own_weights, settings.interval),
        distance=_interval(ours.mean(axis=1, keepdims=True), own_weights, settings.interval),
        real_distance=_interval(theirs[known, None], everyone[known], settings.interval),
        threshold=float(thresholds[0]),
        real_cases=int(known.sum()),
    )


def nearest_hundredth(
    distances: Float[np.ndarray, " N"], weights: Float[np.ndarray, "N B"]
) -> Float[np.ndarray, " B"]:
    """Return the least distance up to which a hundredth of the weight lies, for each column."""
    order = np.argsort(distances)
    reached = np.cumsum(weights[order], axis=0)
    enough = reached >= NEAREST_SHARE * reached[-1] - 1e-9
    # A column without weight has no threshold: nothing is as near.
    found = distances[order][enough.argmax(axis=0)]
    return np.where(reached[-1] > 0, found, -np.inf)


def _share_up_to(
    distances: Float[np.ndarray, " K"], thresholds: Float[np.ndarray, " B"]
) -> Float[np.ndarray, " B"]:
    return np.searchsorted(np.sort(distances), thresholds, side="right") / len(distances)


def _interval(
    values: Float[np.ndarray, "N C"],
    weights: Float[np.ndarray, "N B"],
    level: float,
) -> Bounds:
    """Return the weighted mean over cases; column 0 is the data itself.

    Values have a column for each column of weights, or one for all.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (values * weights).sum(axis=0) / weights.sum(axis=0)
    return percentile_interval(float(means[0]), means[1:], level).to_mapping()


def _by_case(frame: pd.DataFrame, cases: pd.DataFrame) -> Float[np.ndarray, "N K"]:
    wide = frame.pivot(index="case_id", columns="k", values="distance").sort_index(axis=1)
    return wide.reindex(cases["case_id"]).to_numpy(float)
