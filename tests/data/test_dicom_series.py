"""What makes files one complete CT series in HU, and what is refused or remarked otherwise."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless
from scipy import ndimage

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from dicom_series import (  # noqa: E402 - found by the path above
    NODULE_MM,
    ORIGIN_MM,
    ROOT,
    SHAPE,
    STEP_MM,
    write_series,
)
from real_ct import SPACING_MM as SPACING  # noqa: E402
from real_ct import chest_ct  # noqa: E402

from namd.config.errors import InputError  # noqa: E402
from namd.data.sources.dicom import DicomCrop, read_crop  # noqa: E402

SIZE = 32


def crop(folder: Path, centre=NODULE_MM) -> DicomCrop:
    return read_crop(folder, list(centre), 0.5, SIZE)


def change_one(folder: Path, **changes: object) -> None:
    """Change attributes of the fourth slice of nine, the one beside the nodule's."""
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        if slice_.SOPInstanceUID == f"{ROOT}.2.4":
            with pydicom.config.disable_value_validation():
                for name, value in changes.items():
                    setattr(slice_, name, value)
                pydicom.dcmwrite(path, slice_)


def place_of(number: int, *, x: object = ORIGIN_MM[0], z: object = None) -> list[object]:
    return [x, ORIGIN_MM[1], ORIGIN_MM[2] + STEP_MM * (number - 1) if z is None else z]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImagePositionPatient": place_of(4, z="NaN")}, "ImagePositionPatient of file"),
        ({"ImagePositionPatient": place_of(4, z="inf")}, "ImagePositionPatient of file"),
        ({"ImagePositionPatient": place_of(4, x="NaN")}, "ImagePositionPatient of file"),
        ({"ImagePositionPatient": place_of(5)}, "two slices at one place"),
        ({"ImagePositionPatient": place_of(4, x=999.0)}, "shifted against one another"),
        ({"ImagePositionPatient": place_of(4, z=999.0)}, "slices are missing"),
        ({"SliceThickness": 7.5}, "thickness"),
        ({"PatientID": "another"}, "more than one series, study or patient"),
        ({"FrameOfReferenceUID": f"{ROOT}.9"}, "more than one series, study or patient"),
        ({"RescaleSlope": "NaN"}, "RescaleSlope of file"),
        ({"RescaleSlope": 3}, "differ in RescaleSlope or RescaleIntercept"),
        ({"RescaleIntercept": 0}, "differ in RescaleSlope or RescaleIntercept"),
    ],
)
def test_one_slice_that_does_not_belong_is_refused(tmp_path, changes, reason):
    folder = write_series(tmp_path / "s")
    change_one(folder, SliceThickness=STEP_MM, ImagePositionPatient=place_of(4))
    assert crop(folder).warnings == ()
    change_one(folder, **changes)
    with pytest.raises(InputError, match=reason) as refused:
        crop(folder)
    assert "999" not in str(refused.value)


def test_slices_of_a_tilted_gantry_belong_together(tmp_path):
    folder = write_series(tmp_path / "s")
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        x, y, z = slice_.ImagePositionPatient
        slice_.ImagePositionPatient = [x, y + 2.0 * (z - ORIGIN_MM[2]) / STEP_MM, z]
        pydicom.dcmwrite(path, slice_)
    assert crop(folder).hu.shape == (SIZE, SIZE)


@pytest.mark.parametrize("slope", ["NaN", "inf", "0", "-1", "1e30", "1e-9"])
def test_a_slope_that_makes_no_hu_is_refused(tmp_path, slope):
    with pydicom.config.disable_value_validation():
        folder = write_series(tmp_path / "s", RescaleSlope=slope)
    with pytest.raises(InputError, match="RescaleSlope"):
        crop(folder)


@pytest.mark.parametrize("intercept", ["NaN", "-inf", "1e30", "60000", "-60000"])
def test_an_intercept_that_makes_no_hu_is_refused(tmp_path, intercept):
    with pydicom.config.disable_value_validation():
        folder = write_series(tmp_path / "s", RescaleIntercept=intercept)
    with pytest.raises(InputError, match="RescaleIntercept"):
        crop(folder)


def test_values_that_are_hu_plus_1024_get_a_remark(tmp_path):
    (remark,) = crop(write_series(tmp_path / "s", RescaleIntercept=0)).warnings
    assert "looks like lung" in remark
    assert crop(write_series(tmp_path / "t", RescaleIntercept=-1024)).warnings == ()


@pytest.mark.parametrize("kind", ["OD", "HU_MOD", "Z_EFF", "PCT"])
def test_values_in_another_unit_are_refused(tmp_path, kind):
    with pytest.raises(InputError, match="not in HU"):
        crop(write_series(tmp_path / "s", RescaleType=kind))


def test_hu_and_a_unit_that_is_left_open_are_accepted(tmp_path):
    assert crop(write_series(tmp_path / "s", RescaleType="HU")).warnings == ()
    assert crop(write_series(tmp_path / "t", RescaleType="")).warnings == ()
    (remark,) = crop(write_series(tmp_path / "u", RescaleType="US")).warnings
    assert "taken for HU" in remark


def test_a_modality_lut_is_refused_and_an_empty_one_is_none(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "HU"
    with pytest.raises(InputError, match="modality LUT"):
        crop(write_series(tmp_path / "s", ModalityLUTSequence=[table]))
    assert crop(write_series(tmp_path / "t", ModalityLUTSequence=[])).warnings == ()


def test_a_nodule_denser_than_tissue_gets_a_remark(tmp_path):
    (remark,) = crop(write_series(tmp_path / "s", RescaleSlope=3)).warnings
    assert "RescaleSlope" in remark


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SpacingBetweenSlices": STEP_MM}, None),
        ({"SpacingBetweenSlices": -STEP_MM}, None),
        ({"SpacingBetweenSlices": 10}, "contradicts the positions"),
        ({"SpacingBetweenSlices": "NaN"}, "contradicts the positions"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, None),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived from others"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "REFORMATTED"]}, "derived from others"),
    ],
)
def test_what_the_slices_say_of_their_origin_is_remarked_without_values(tmp_path, changes, reason):
    with pydicom.config.disable_value_validation():
        folder = write_series(tmp_path / "s", **changes)
    said = crop(folder).warnings
    assert [reason in remark for remark in said] == ([True] if reason else [])
    assert not any("10" in remark or "MPR" in remark for remark in said)


def spread(folder: Path, step_mm: float, thickness_mm: float | None) -> Path:
    """Write two slices, the lower one through the nodule."""
    for number in range(2):
        place = np.array([ORIGIN_MM[0], ORIGIN_MM[1], NODULE_MM[2] + step_mm * number])
        write_series(folder / str(number), count=1, origin=place, SliceThickness=thickness_mm)
    return folder


@pytest.mark.parametrize(
    ("step_mm", "thickness_mm", "accepted"),
    [
        (12.0, 1.5, False),
        (12.0, None, False),
        (3.1, 1.5, False),
        (3.0, 1.5, True),
        (2.5, None, True),
        (1.0, 5.0, True),
    ],
)
def test_two_slices_with_too_much_between_them_are_refused(
    tmp_path, step_mm, thickness_mm, accepted
):
    folder = spread(tmp_path / "s", step_mm, thickness_mm)
    if accepted:
        assert crop(folder).warnings == ()
        return
    with pytest.raises(InputError, match="slices are missing: they lie further apart"):
        crop(folder)


@pytest.mark.parametrize(
    ("thickness_mm", "off_mm", "reason"),
    [
        (100.0, 45.0, "SliceThickness"),
        (0.0, 0.0, "SliceThickness"),
        (-5.0, 0.0, "SliceThickness"),
        (5.0, 2.6, "--centre"),
        (None, 0.6, "--centre"),
        (5.0, 2.4, None),
        (None, 0.4, None),
    ],
)
def test_a_single_slice_covers_its_thickness_alone(tmp_path, thickness_mm, off_mm, reason):
    origin = np.array([ORIGIN_MM[0], ORIGIN_MM[1], NODULE_MM[2]])
    folder = write_series(tmp_path / "s", count=1, origin=origin, SliceThickness=thickness_mm)
    point = NODULE_MM + np.array([0, 0, off_mm])
    if reason is None:
        assert crop(folder, point).warnings == ()
        return
    with pytest.raises(InputError, match=reason):
        crop(folder, point)


def test_copies_of_slices_are_left_out_and_counted(tmp_path):
    folder = write_series(tmp_path / "s")
    before = crop(folder)
    paths = sorted(folder.iterdir())
    for number, path in enumerate([paths[0], paths[0], paths[4]]):
        (folder / f"copy {number}.dcm").write_bytes(path.read_bytes())
    found = crop(folder)
    assert np.array_equal(found.hu, before.hu)
    (remark,) = found.warnings
    assert remark.startswith("3 of the files equal another one")


def test_files_without_an_image_are_counted(tmp_path):
    folder = write_series(tmp_path / "s")
    (folder / "README.txt").write_text("no DICOM")
    report = pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True)
    del report.Rows, report.Columns
    report.Modality = "SR"
    pydicom.dcmwrite(folder / "report.dcm", report)
    (remark,) = crop(folder).warnings
    assert remark.startswith("2 of the files hold no DICOM image")
    report.Modality = "CT"
    pydicom.dcmwrite(folder / "report.dcm", report)
    with pytest.raises(InputError, match="lacks Rows, Columns"):
        crop(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": SHAPE[0] - 50},
        {"Columns": SHAPE[1] - 1},
        {"Rows": 65535, "Columns": 4096},
        {"NumberOfFrames": 2, "Rows": SHAPE[0] // 2},
        {"SamplesPerPixel": 3, "PlanarConfiguration": 0},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"BitsStored": 8, "HighBit": 7},
        {"HighBit": 11},
        {"PixelRepresentation": 2},
    ],
)
def test_pixels_that_do_not_fit_the_header_are_refused(tmp_path, changes):
    with pytest.raises(InputError, match="--dicom"):
        crop(write_series(tmp_path / "s", **changes))
    fitting = {"NumberOfFrames": 1, "BitsStored": 12, "HighBit": 11}
    assert crop(write_series(tmp_path / "t", **fitting)).warnings == ()


def test_compressed_pixels_are_the_same_and_an_absent_codec_is_named(tmp_path):
    folder = write_series(tmp_path / "s")
    before = crop(folder)
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.compress(RLELossless)
        slice_.save_as(path)
    assert np.array_equal(crop(folder).hu, before.hu)
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.file_meta.TransferSyntaxUID = JPEGLSLossless
        slice_.save_as(path)
    with pytest.raises(InputError, match="needs a pydicom plugin"):
        crop(folder)


def test_the_heart_of_a_real_ct_gets_a_remark(tmp_path, shared_data):
    volume = chest_ct(shared_data)
    number = 40
    rows, columns = np.nonzero(ndimage.uniform_filter(volume[number].astype(float), 9) > 400)
    middle = len(rows) // 2
    folder = write_series(
        tmp_path / "s",
        count=1,
        origin=np.zeros(3),
        Rows=volume.shape[1],
        Columns=volume.shape[2],
        PixelSpacing=[SPACING, SPACING],
        RescaleSlope=1,
        PixelData=(volume[number] + 1024).clip(0, 4095).astype(np.uint16).tobytes(),
    )
    (remark,) = crop(folder, [columns[middle] * SPACING, rows[middle] * SPACING, 0.0]).warnings
    assert "check the place" in remark
