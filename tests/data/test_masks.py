"""A mask marks the nodule in the middle of its crop."""

import csv
from pathlib import Path

import numpy as np
import pytest

from namd.config.errors import InputError
from namd.data.sources.masks import require_on_nodules

SIDE, SPACING_MM = 71, 0.7
ROWS, COLUMNS = np.indices((SIDE, SIDE)) - SIDE // 2
DISTANCE_MM = np.hypot(ROWS, COLUMNS) * SPACING_MM
BALL = DISTANCE_MM <= 4


def check(*masks: np.ndarray) -> None:
    names = [f"n{number}" for number in range(len(masks))]
    require_on_nodules(np.stack(masks), np.full(len(masks), SPACING_MM), names, Path("c.npz"))


@pytest.mark.parametrize(
    "mask",
    [
        BALL,
        np.roll(BALL, 8, axis=1),
        BALL & (DISTANCE_MM > 2),
        DISTANCE_MM <= 20,
        np.roll(DISTANCE_MM <= 15, 15, axis=0),
        np.zeros_like(BALL),
    ],
    ids=["ball", "off-centre", "ring", "mass", "mass at the border", "without a contour"],
)
def test_a_nodule_about_the_middle_is_accepted(mask):
    check(BALL, mask)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (~BALL, "n1 covers most of the crop's border.*inverted"),
        (np.ones_like(BALL), "n1 covers most of the crop's border"),
        (np.roll(BALL, 25, axis=0), "n1 lies more than 5 mm from the middle.*shifted"),
        (np.roll(BALL, 25, axis=1), "n1 lies more than 5 mm from the middle.*shifted"),
    ],
    ids=["inverted", "everything", "rolled down", "rolled aside"],
)
def test_anything_else_is_refused_with_its_case(mask, reason):
    with pytest.raises(InputError, match=reason):
        check(BALL, mask)


def test_masks_that_are_all_empty_are_refused():
    with pytest.raises(InputError, match=r"no mask marks a pixel.*leave the masks out"):
        check(np.zeros_like(BALL), np.zeros_like(BALL))


def test_all_real_contours_are_accepted_and_their_opposites_refused(shared_data):
    folder = shared_data / "lidc_nodules2d"
    with np.load(folder / "nodules.npz") as arrays:
        votes = arrays["votes"]
    with (folder / "nodules.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    spacing = np.array([float(line["pixel_spacing_mm"]) for line in lines])
    readers = np.array([float(line["n_readers"]) for line in lines])
    masks = (votes > 0) & (2 * votes.astype(int) >= readers[:, None, None])
    names = [line["nodule_id"] for line in lines]
    require_on_nodules(masks, spacing, names, Path("nodules.npz"))
    for number in range(0, len(masks), 50):
        one = slice(number, number + 1)
        for wrong in (~masks[one], np.roll(masks[one], 30, axis=1)):
            with pytest.raises(InputError):
                require_on_nodules(wrong, spacing[one], names[one], Path("nodules.npz"))
