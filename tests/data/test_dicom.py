"""Crops from DICOM series: geometry, HU, and what is refused without naming anybody."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from dicom_series import (  # noqa: E402 - found by the path above
    IDENTIFIERS,
    NODULE_MM,
    ORIGIN_MM,
    ROOT,
    SHAPE,
    SPACING_MM,
    STEP_MM,
    volume_hu,
    write_series,
)

from namd.config.errors import InputError  # noqa: E402
from namd.config.seeding import generator  # noqa: E402
from namd.data.resampling import resample, resample_at  # noqa: E402
from namd.data.sources.dicom import read_crop  # noqa: E402

SIZE, CROP_MM = 32, 0.5
HIGHER = ORIGIN_MM + np.array([0, 0, 100.0])


def expected(centre: np.ndarray, plane_mm: float) -> np.ndarray:
    """The scene on the crop's grid: columns towards the left, rows towards the back."""
    steps = (np.arange(SIZE) - (SIZE - 1) / 2) * CROP_MM
    y, x = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([centre[0] + x, centre[1] + y, np.full_like(x, plane_mm)], -1)
    return volume_hu(points)


def crop(folder: Path, centre=NODULE_MM):
    return read_crop(folder, list(centre), CROP_MM, SIZE)


EXTENT = np.array([(SHAPE[1] - 1) * SPACING_MM[1], (SHAPE[0] - 1) * SPACING_MM[0], 0.0])


@pytest.mark.parametrize(
    ("orientation", "origin"),
    [
        ((1, 0, 0, 0, 1, 0), ORIGIN_MM),
        ((-1, 0, 0, 0, 1, 0), ORIGIN_MM + np.array([EXTENT[0], 0, 20])),
        ((-1, 0, 0, 0, -1, 0), ORIGIN_MM + EXTENT),
        ((0, 1, 0, 1, 0, 0), ORIGIN_MM + np.array([0, 0, 20])),
        ((0, 1, 0, -1, 0, 0), ORIGIN_MM + np.array([EXTENT[0], 0, 0])),
    ],
    ids=["as usual", "mirrored", "prone", "transposed", "turned"],
)
def test_the_crop_is_the_scene_about_the_point_however_the_slices_lie(
    tmp_path, orientation, origin
):
    found = crop(write_series(tmp_path / "s", orientation=orientation, origin=origin))
    assert found.hu.shape == (SIZE, SIZE)
    assert found.spacing_mm == CROP_MM
    assert found.warnings == ()
    np.testing.assert_allclose(found.hu, expected(NODULE_MM, NODULE_MM[2]), atol=4)
    assert np.abs(found.hu[:, ::-1] - expected(NODULE_MM, NODULE_MM[2])).max() > 10


def test_the_slice_is_the_one_nearest_to_the_point(tmp_path):
    folder = write_series(tmp_path / "s")
    off = NODULE_MM + np.array([3.3, -2.1, 0.4 * STEP_MM])
    np.testing.assert_allclose(crop(folder, off).hu, expected(off, NODULE_MM[2]), atol=4)
    next_one = NODULE_MM + np.array([0, 0, 0.6 * STEP_MM])
    plane = NODULE_MM[2] + STEP_MM
    np.testing.assert_allclose(crop(folder, next_one).hu, expected(next_one, plane), atol=4)


def test_a_crop_that_leaves_the_image_is_padded_with_air_and_said(tmp_path):
    folder = write_series(tmp_path / "s")
    corner = np.array([ORIGIN_MM[0] + 2, ORIGIN_MM[1] + 2, NODULE_MM[2]])
    found = crop(folder, corner)
    assert (found.hu[:8, :8] == -1000).all()
    assert "leaves the image" in found.warnings[0]


@pytest.mark.parametrize(
    "centre",
    [
        NODULE_MM + np.array([0, 0, 40.0]),
        NODULE_MM - np.array([0, 0, 40.0]),
        NODULE_MM + np.array([500.0, 0, 0]),
        NODULE_MM - np.array([0, 200.0, 0]),
        [float("nan"), 0, 0],
        [1.0, 2.0],
    ],
)
def test_a_point_outside_is_refused(tmp_path, centre):
    folder = write_series(tmp_path / "s")
    crop(folder)
    with pytest.raises(InputError, match="--centre"):
        crop(folder, centre)


def _remove_one(folder: Path) -> None:
    sorted(folder.iterdir(), key=lambda path: path.name.rpartition(".2.")[2])[4].unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: write_series(f, series=f"{ROOT}.9"), "more than one series"),
        (lambda f: write_series(f / "more", origin=HIGHER), "slices are missing"),
        (_remove_one, "slices are missing"),
        (lambda f: write_series(f, Modality="MR"), "not .single-frame. CT"),
        (
            lambda f: write_series(f, SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"),
            "not .single-frame. CT",
        ),
        (lambda f: write_series(f, PhotometricInterpretation="MONOCHROME1"), "MONOCHROME2"),
        (lambda f: write_series(f, PixelSpacing=[0.7, 99.0]), "PixelSpacing of file 1 of 9"),
        (lambda f: write_series(f, RescaleSlope=None), "lacks RescaleSlope"),
        (lambda f: write_series(f, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (lambda f: write_series(f, orientation=(1, 0, 0, 0, 0, -1)), "not axial"),
        (lambda f: write_series(f, PixelData=b"\0" * 10), "cannot be decoded"),
        (lambda f: [path.unlink() for path in f.iterdir()], "no DICOM image"),
        (lambda f: [path.write_text("no") for path in f.iterdir()], "no DICOM image"),
    ],
)
def test_what_is_no_single_complete_ct_series_is_refused_and_names_nobody(
    tmp_path, spoil, reason, capfd
):
    folder = write_series(tmp_path / "s")
    crop(folder)
    spoil(folder)
    with pytest.raises(InputError, match=reason) as refused:
        crop(folder)
    shown = str(refused.value) + "".join(capfd.readouterr())
    for value in (*IDENTIFIERS.values(), ROOT, "Xylander", "Quirina"):
        assert value not in shown
    assert "\n" not in str(refused.value)


def test_duplicated_slices_are_refused_and_foreign_files_passed_over(tmp_path):
    folder = write_series(tmp_path / "s")
    (folder / "README.txt").write_text("no DICOM")
    before = crop(folder)
    path = next(path for path in folder.iterdir() if path.suffix == ".dcm")
    again = pydicom.dcmread(path)
    again.SOPInstanceUID = f"{ROOT}.2.99"
    pydicom.dcmwrite(folder / "again.dcm", again)
    with pytest.raises(InputError, match="two slices at one place"):
        crop(folder)
    (folder / "again.dcm").unlink()
    assert np.array_equal(crop(folder).hu, before.hu)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        crop(tmp_path / "absent")


def test_values_that_pydicom_finds_odd_are_not_reported(tmp_path, capfd):
    odd = "19510317-not-a-date"
    with pydicom.config.disable_value_validation():
        folder = write_series(tmp_path / "s", PatientBirthDate=odd, RescaleIntercept="-1024")
    crop(folder)
    assert odd not in "".join(capfd.readouterr())


@pytest.mark.parametrize("native", [0.4, 0.5, 0.9])
def test_a_crop_of_a_large_image_is_that_of_its_middle(native):
    image = generator("test-resample-at").normal(0, 100, (201, 201)).astype(np.float32)
    whole = resample(image, native, 0.5, 41).astype(int)
    part = resample_at(image, (100.0, 100.0), (native, native), 0.5, 41, -1000).astype(int)
    assert np.abs(whole - part).max() <= 1
    moved = resample_at(image, (101.0, 100.0), (native, native), 0.5, 41, -1000).astype(int)
    assert np.abs(whole - moved).max() > 20
