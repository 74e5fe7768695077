"""What gets a remark: places without lung, in wide tissue, or where nothing stands out."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from real_ct import SPACING_MM, chest_ct  # noqa: E402 - found by the path above

from namd.config.seeding import generator  # noqa: E402
from namd.data.plausibility import remarks  # noqa: E402

LUNG, TISSUE, AIR = -850.0, 40.0, -1000.0
MIDDLE = (60.0, 60.0)
SPACING = (0.7, 0.7)


def scene(background: float, *discs: tuple[tuple[float, float], float, float], noise: float = 20.0):
    """A noisy plane with discs of (place in px, radius in mm, HU)."""
    image = generator("test-plausibility").normal(background, noise, (121, 121))
    rows, columns = np.indices(image.shape)
    for (row, column), radius, hu in discs:
        image[np.hypot(rows - row, columns - column) * SPACING[0] <= radius] += hu - background
    return np.clip(image, -1024, 3071).astype(np.int16)


@pytest.mark.parametrize(
    "image",
    [
        scene(LUNG, (MIDDLE, 4, TISSUE)),
        scene(LUNG, (MIDDLE, 12, TISSUE)),
        scene(LUNG, (MIDDLE, 5, -600.0)),
        scene(LUNG, (MIDDLE, 3, 200.0)),
        scene(LUNG, (MIDDLE, 3, TISSUE), (MIDDLE, 1.5, 900.0)),
        scene(LUNG, (MIDDLE, 5, TISSUE), ((60.0, 125.0), 40, TISSUE)),
        scene(-930.0, (MIDDLE, 5, TISSUE)),
    ],
    ids=[
        "small",
        "large",
        "ground glass",
        "enhanced",
        "calcified in the middle",
        "on the chest wall",
        "emphysema",
    ],
)
def test_a_nodule_in_lung_gets_no_remark(image):
    assert remarks(image, MIDDLE, SPACING) == ()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (scene(554.0), "looks like lung"),
        (scene(AIR, noise=5.0), "looks like lung"),
        (scene(LUNG + 1024, (MIDDLE, 4, TISSUE + 1024)), "looks like lung"),
        (scene(LUNG, (MIDDLE, 17, TISSUE)), "wide"),
        (scene(LUNG, ((60.0, 88.0), 24, 554.0)), "wide"),
        (scene(LUNG), "stands out"),
        (scene(AIR, noise=50.0), "stands out"),
        (scene(LUNG, ((60.0, 80.0), 4, TISSUE)), "stands out"),
        (scene(TISSUE, (MIDDLE, 20, LUNG)), "stands out"),
        (scene(LUNG, (MIDDLE, 3, 557.0)), "above 300 HU throughout"),
    ],
    ids=[
        "heart",
        "air",
        "HU + 1024",
        "a mass",
        "heart beside lung",
        "lung",
        "noisy air",
        "a nodule elsewhere",
        "a bulla",
        "calcified throughout",
    ],
)
def test_anything_else_gets_one(image, reason):
    (remark,) = remarks(image, MIDDLE, SPACING)
    assert reason in remark
    assert "\n" not in remark


def test_a_place_at_the_edge_of_an_image_is_judged_by_what_is_there():
    assert remarks(scene(LUNG, ((0.0, 60.0), 5, TISSUE)), (-0.4, 60.0), SPACING) == ()
    assert remarks(scene(LUNG), (120.4, 120.4), SPACING) != ()


def test_few_real_nodules_get_a_remark(shared_data):
    with np.load(shared_data / "lidc_nodules2d" / "nodules.npz") as arrays:
        crops = arrays["hu"]
    with (shared_data / "lidc_nodules2d" / "nodules.csv").open() as stream:
        spacings = [float(row["pixel_spacing_mm"]) for row in csv.DictReader(stream)]
    said = [
        remarks(crop, (35.0, 35.0), (spacing, spacing))
        for crop, spacing in zip(crops, spacings, strict=True)
    ]
    assert np.mean([bool(one) for one in said]) < 0.045
    assert np.mean(["above 300 HU" in "".join(one) for one in said]) < 0.02
    shifted = [remarks(crop + 1024, (35.0, 35.0), (0.7, 0.7)) for crop in crops[:200]]
    assert all(shifted)


@pytest.mark.parametrize(
    ("tissue", "least"), [("heart", 0.95), ("bone", 0.85), ("lung away from vessels", 0.95)]
)
def test_most_places_of_a_real_ct_without_nodules_get_one(shared_data, tissue, least):
    volume = chest_ct(shared_data)
    inside = {
        "heart": lambda: ndimage.uniform_filter(volume.astype(np.float32), 7) > 200,
        "bone": lambda: volume > 500,
        "lung away from vessels": lambda: (
            ndimage.distance_transform_edt(volume < -600, sampling=SPACING_MM) > 2
        ),
    }[tissue]()
    inside[:, :6], inside[:, -6:], inside[:, :, :6], inside[:, :, -6:] = (False,) * 4
    places = np.argwhere(inside)
    draw = generator("test-plausibility", tissue)
    said = [
        bool(remarks(volume[number], (float(row), float(column)), (SPACING_MM, SPACING_MM)))
        for number, row, column in places[draw.permutation(len(places))[:200]]
    ]
    assert np.mean(said) >= least
