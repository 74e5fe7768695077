"""One crop from a CT series in DICOM files, in a cohort's grid, without any identifier.

The slice through a point given in patient millimetres (DICOM's LPS axes) is turned to the standard
axial view (columns towards the patient's left, rows towards the back), brought to HU and resampled
in plane as source `crops` does.

No value of a DICOM attribute and no file name (scanners name files by UID) enters an error or a
warning. One file is read and checked in `dicom_headers` and `dicom_pixels`; what the slices of a
series mean together belongs here.
"""

import filecmp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from namd.config.errors import InputError
from namd.data import plausibility
from namd.data.resampling import resample_at
from namd.data.sources.dicom_headers import FARTHEST_MM, FolderHeaders, SliceHeader, read_headers
from namd.data.sources.dicom_pixels import read_hu

OUTSIDE_HU = -1000
AXIAL_COSINE = 0.9
"""Least cosine between a slice's normal and the patient's axis; gantries tilt up to 25 degrees."""
PLACE_TOLERANCE_MM = 0.01
STEP_TOLERANCE = 0.1
"""Share of the usual distance of slices by which a distance may differ."""
SHIFT_TOLERANCE_MM = 1.0
"""By which a step may differ from the usual one in any direction; a tilt shifts all alike."""
GAP_THICKNESSES = 2.0
"""Slices that lie further apart than this many thicknesses leave too much out."""
LARGEST_STEP_MM = 10.0
LONE_SLICE_MM = 1.0
"""Thickness of a single slice that does not say its own."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DicomCrop:
    """A crop about a point of a series.

    Attributes:
        hu: int16 (S, S).
        spacing_mm: Of its pixels.
        warnings: What a reader of the result should know, one line each.
    """

    hu: npt.NDArray[np.int16]
    spacing_mm: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Slice:
    """A slice's header and geometry; `place_mm` counts along the series' normal."""

    header: SliceHeader
    origin: Vector
    place_mm: float


@dataclass(frozen=True)
class _Grid:
    """What all slices of a series share: row direction, column direction, spacings, shape."""

    along_row: Vector
    along_column: Vector
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]

    @property
    def normal(self) -> Vector:
        """Direction in which slices follow each other."""
        return np.cross(self.along_row, self.along_column)


def read_crop(folder: Path, centre_mm: Sequence[float], spacing_mm: float, size: int) -> DicomCrop:
    """Return the crop about a point.

    Args:
        folder: Holds the files of one CT series; files of other kinds are passed over.
        centre_mm: x, y, z in patient coordinates, as ImagePositionPatient counts.
        spacing_mm: In-plane spacing of the crop.
        size: Pixels per side.

    Raises:
        InputError: It is no single complete CT series, or the point lies outside of it.
    """
    centre = np.asarray(centre_mm, dtype=np.float64)
    if centre.shape != (3,) or not (np.abs(centre) <= FARTHEST_MM).all():
        raise InputError("--centre: give x,y,z in mm, as ImagePositionPatient counts")
    headers = read_headers(folder)
    grid, slices, num_copies = _series(headers.images)
    chosen = _slice_at(slices, float(centre @ grid.normal))
    image = read_hu(chosen.header)
    across = centre - chosen.origin
    row = float(across @ grid.along_column) / grid.spacing_mm[0]
    column = float(across @ grid.along_row) / grid.spacing_mm[1]
    if not (-0.5 <= row <= grid.shape[0] - 0.5 and -0.5 <= column <= grid.shape[1] - 0.5):
        raise InputError("--centre: lies outside the images of this series")
    image, place, native_mm = _standard_view(image, (row, column), grid)
    hu = resample_at(image, place, native_mm, spacing_mm, size, OUTSIDE_HU)
    warnings = (
        *_about_files(headers, num_copies, chosen.header),
        *_about_origin(slices, chosen.header),
        *_leaving(image.shape, place, native_mm, spacing_mm, size),
        *plausibility.remarks(image, place, native_mm),
    )
    return DicomCrop(hu, spacing_mm, warnings)


def _series(headers: Sequence[SliceHeader]) -> tuple[_Grid, list[_Slice], int]:
    """Return the grid, the slices in order and how many files are copies of another one.

    Raises InputError for what is no single complete axial series.
    """
    if len({header.same for header in headers}) > 1:
        raise InputError(
            "--dicom: images of more than one series, study or patient; give the folder of one "
            "series"
        )
    grids = [_grid(header) for header in headers]
    grid = grids[0]
    thicknesses = [one.thickness_mm for one in headers if one.thickness_mm is not None]
    if any(not _same(grid, other) for other in grids) or not np.allclose(
        thicknesses, thicknesses[:1] or 0.0, rtol=STEP_TOLERANCE
    ):
        raise InputError(
            "--dicom: slices differ in size, spacing, thickness or orientation (mixed series)"
        )
    first = headers[0]
    if any((one.slope, one.intercept) != (first.slope, first.intercept) for one in headers):
        raise InputError(
            "--dicom: slices differ in RescaleSlope or RescaleIntercept, which one CT series "
            "shares (mixed or altered series)"
        )
    if abs(grid.normal[2]) < AXIAL_COSINE:
        raise InputError("--dicom: the slices are not axial; cohorts hold axial crops only")
    placed = []
    for header in headers:
        origin = np.asarray(header.origin_mm)
        placed.append(_Slice(header, origin, float(origin @ grid.normal)))
    slices = _without_copies(sorted(placed, key=lambda one: one.place_mm))
    steps = np.diff([one.place_mm for one in slices])
    if len(steps) and (np.abs(steps / np.median(steps) - 1) > STEP_TOLERANCE).any():
        raise InputError("--dicom: slices are missing: their distances differ")
    shifts = np.diff([one.origin for one in slices], axis=0)
    if len(steps) and (np.abs(shifts - np.median(shifts, axis=0)) > SHIFT_TOLERANCE_MM).any():
        raise InputError("--dicom: slices are shifted against one another (mixed series)")
    if len(steps) and np.median(steps) > _largest_step_mm(slices) + PLACE_TOLERANCE_MM:
        raise InputError(
            "--dicom: slices are missing: they lie further apart than "
            f"{GAP_THICKNESSES:g} times their thickness, or than {LARGEST_STEP_MM:g} mm"
        )
    return grid, slices, len(placed) - len(slices)


def _grid(header: SliceHeader) -> _Grid:
    cosines = np.asarray(header.cosines)
    orthonormal = np.allclose(
        [cosines[:3] @ cosines[:3], cosines[3:] @ cosines[3:], cosines[:3] @ cosines[3:]],
        [1, 1, 0],
        atol=1e-3,
    )
    if not orthonormal:
        raise InputError(f"--dicom: ImageOrientationPatient of {header.label} is impossible")
    return _Grid(cosines[:3], cosines[3:], header.spacing_mm, header.shape)


def _same(one: _Grid, other: _Grid) -> bool:
    return (
        one.shape == other.shape
        and np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-4)
        and np.allclose(one.along_row, other.along_row, atol=1e-3)
        and np.allclose(one.along_column, other.along_column, atol=1e-3)
    )


def _without_copies(slices: Sequence[_Slice]) -> list[_Slice]:
    """Leave out files that equal another one to the byte, or refuse two slices at one place."""
    kept: list[_Slice] = []
    for one in slices:
        if not kept or one.place_mm - kept[-1].place_mm >= PLACE_TOLERANCE_MM:
            kept.append(one)
        elif not _equal(one.header.path, kept[-1].header.path):
            raise InputError("--dicom: two slices at one place (mixed series or phases)")
    return kept


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        raise InputError("--dicom: a file of this folder cannot be read again") from None


def _thickness_mm(slices: Sequence[_Slice]) -> float | None:
    """Return the least thickness that a slice says."""
    said = [one.header.thickness_mm for one in slices if one.header.thickness_mm is not None]
    return min(said) if said else None


def _largest_step_mm(slices: Sequence[_Slice]) -> float:
    thickness = _thickness_mm(slices)
    if thickness is None:
        return LARGEST_STEP_MM
    return min(GAP_THICKNESSES * thickness, LARGEST_STEP_MM)


def _slice_at(slices: Sequence[_Slice], place_mm: float) -> _Slice:
    """Return the slice nearest to a place, or refuse one that no slice covers."""
    steps = np.diff([one.place_mm for one in slices])
    step = float(np.median(steps)) if len(steps) else _thickness_mm(slices) or LONE_SLICE_MM
    nearest = min(slices, key=lambda one: abs(one.place_mm - place_mm))
    if abs(nearest.place_mm - place_mm) > step / 2 + PLACE_TOLERANCE_MM:
        raise InputError(
            "--centre: z lies above or below the slices of this series; all three numbers are "
            "patient mm as in ImagePositionPatient, not slice numbers"
        )
    return nearest


def _about_files(headers: FolderHeaders, num_copies: int, chosen: SliceHeader) -> list[str]:
    remarks = []
    if headers.num_passed_over:
        remarks.append(f"{headers.num_passed_over} of the files hold no DICOM image: passed over")
    if num_copies:
        remarks.append(f"{num_copies} of the files equal another one to the byte: left out")
    if not chosen.unit_is_hu:
        remarks.append("the files leave the unit of their values open; they are taken for HU")
    return remarks


def _about_origin(slices: Sequence[_Slice], chosen: SliceHeader) -> list[str]:
    remarks = []
    if chosen.is_derived:
        remarks.append(
            "ImageType says that the images were derived from others, such as a reformat or a "
            "projection; the model has seen a scanner's own slices alone"
        )
    if len(slices) > 1:
        step = float(np.median(np.diff([one.place_mm for one in slices])))
        said = [one.header.step_mm for one in slices if one.header.step_mm is not None]
        if not np.allclose(said, step, rtol=STEP_TOLERANCE, atol=PLACE_TOLERANCE_MM):
            remarks.append(
                "SpacingBetweenSlices contradicts the positions of the slices, which are used"
            )
    return remarks


def _standard_view(
    image: npt.NDArray[np.float32], place: tuple[float, float], grid: _Grid
) -> tuple[npt.NDArray[np.float32], tuple[float, float], tuple[float, float]]:
    """Turn and mirror to the axial view: columns towards the left, rows towards the back.

    Only whole quarter turns and mirrors: what remains of an oblique slice stays as it is.
    """
    row, column = place
    rows_mm, columns_mm = grid.spacing_mm
    along_row, along_column = grid.along_row, grid.along_column
    if abs(along_row[0]) < abs(along_row[1]):
        image, along_row, along_column = image.T, along_column, along_row
        row, column, rows_mm, columns_mm = column, row, columns_mm, rows_mm
    if along_row[0] < 0:
        image, column = image[:, ::-1], image.shape[1] - 1 - column
    if along_column[1] < 0:
        image, row = image[::-1], image.shape[0] - 1 - row
    return image, (row, column), (rows_mm, columns_mm)


def _leaving(
    shape: tuple[int, ...],
    place: tuple[float, float],
    native_mm: tuple[float, float],
    spacing_mm: float,
    size: int,
) -> tuple[str, ...]:
    half = spacing_mm * (size - 1) / 2 / np.asarray(native_mm)
    low, high = np.asarray(place) - half, np.asarray(place) + half
    if (low >= -0.5).all() and (high <= np.asarray(shape) - 0.5).all():
        return ()
    return (f"the crop leaves the image; what lies beyond is filled with {OUTSIDE_HU} HU",)
