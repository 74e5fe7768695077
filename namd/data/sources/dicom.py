"""One crop from a CT series in DICOM files, in a cohort's grid, without any identifier.

The slice through a point given in patient millimetres (DICOM's LPS axes) is turned to the standard
axial view (columns towards the patient's left, rows towards the back), brought to HU and resampled
in plane as source `crops` does.

No value of a DICOM attribute and no file name (scanners name files by UID) enters an error or a
warning; pydicom's own messages quote values and are kept silent.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from namd.config.errors import InputError
from namd.data import schema
from namd.data.resampling import resample_at

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
OUTSIDE_HU = -1000
GEOMETRY = (
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
)
AXIAL_COSINE = 0.9
"""Least cosine between a slice's normal and the patient's axis; gantries tilt up to 25 degrees."""
PLACE_TOLERANCE_MM = 0.01
STEP_TOLERANCE = 0.1
"""Share of the usual distance of slices by which a distance may differ."""

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
    """A slice's file and geometry; `place_mm` counts along the series' normal."""

    path: Path
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
    if centre.shape != (3,) or not np.isfinite(centre).all():
        raise InputError("--centre: give x,y,z in mm, as ImagePositionPatient counts")
    with _silent():
        headers = list(_headers(folder))
        grid, slices = _series(headers)
        chosen = _slice_at(slices, float(centre @ grid.normal), headers)
        image = _hu(chosen.path)
    across = centre - chosen.origin
    row = float(across @ grid.along_column) / grid.spacing_mm[0]
    column = float(across @ grid.along_row) / grid.spacing_mm[1]
    if not (-0.5 <= row <= grid.shape[0] - 0.5 and -0.5 <= column <= grid.shape[1] - 0.5):
        raise InputError("--centre: lies outside the images of this series")
    image, place, native_mm = _standard_view(image, (row, column), grid)
    hu = resample_at(image, place, native_mm, spacing_mm, size, OUTSIDE_HU)
    return DicomCrop(hu, spacing_mm, _leaving(image.shape, place, native_mm, spacing_mm, size))


def _headers(folder: Path) -> Iterator[tuple[Path, pydicom.Dataset]]:
    if not folder.is_dir():
        raise InputError("--dicom: no such folder; it takes the folder of one CT series")
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        except (OSError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError):
            raise InputError("--dicom: a file of this folder cannot be read as DICOM") from None
        # DICOMDIR and reports have no rows: they are no images.
        if "Rows" in header:
            yield path, header


def _series(headers: Sequence[tuple[Path, pydicom.Dataset]]) -> tuple[_Grid, list[_Slice]]:
    """Return the shared grid and the slices in order, or refuse what is no single CT series."""
    if not headers:
        raise InputError("--dicom: no DICOM image in this folder")
    for _, header in headers:
        _require_plain_ct(header)
    if len({str(header.get("SeriesInstanceUID")) for _, header in headers}) > 1:
        raise InputError("--dicom: images of more than one series; give the folder of one")
    grids = [_grid(header) for _, header in headers]
    grid = grids[0]
    if any(not _same(grid, other) for other in grids):
        raise InputError("--dicom: slices differ in size, spacing or orientation (mixed series)")
    if abs(grid.normal[2]) < AXIAL_COSINE:
        raise InputError("--dicom: the slices are not axial; cohorts hold axial crops only")
    slices = []
    for path, header in headers:
        origin = np.asarray([float(v) for v in header.ImagePositionPatient])
        slices.append(_Slice(path, origin, float(origin @ grid.normal)))
    slices.sort(key=lambda one: one.place_mm)
    steps = np.diff([one.place_mm for one in slices])
    if (steps < PLACE_TOLERANCE_MM).any():
        raise InputError("--dicom: two slices at one place (mixed series or phases)")
    if len(steps) and (np.abs(steps / np.median(steps) - 1) > STEP_TOLERANCE).any():
        raise InputError("--dicom: slices are missing: their distances differ")
    return grid, slices


def _require_plain_ct(header: pydicom.Dataset) -> None:
    if header.get("Modality") != "CT" or header.get("SOPClassUID", CT_STORAGE) != CT_STORAGE:
        raise InputError("--dicom: holds images that are not (single-frame) CT")
    if header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise InputError("--dicom: images are not MONOCHROME2; inverted or colour ones are refused")
    if "LOCALIZER" in (header.get("ImageType") or ()):
        raise InputError("--dicom: holds a localizer; give the folder of one axial series")
    missing = [
        name for name in (*GEOMETRY, "RescaleSlope", "RescaleIntercept") if name not in header
    ]
    if missing:
        raise InputError(f"--dicom: images lack {', '.join(missing)}")


def _grid(header: pydicom.Dataset) -> _Grid:
    try:
        cosines = np.asarray([float(v) for v in header.ImageOrientationPatient])
        spacing = tuple(float(v) for v in header.PixelSpacing)
        shape = (int(header.Rows), int(header.Columns))
        [float(v) for v in header.ImagePositionPatient]
    except (TypeError, ValueError):
        raise InputError("--dicom: the geometry of an image is not in numbers") from None
    orthonormal = cosines.shape == (6,) and np.allclose(
        [cosines[:3] @ cosines[:3], cosines[3:] @ cosines[3:], cosines[:3] @ cosines[3:]],
        [1, 1, 0],
        atol=1e-3,
    )
    low, high = schema.LIMITS.spacing_mm
    if not orthonormal or len(spacing) != 2 or not all(low <= v <= high for v in spacing):
        raise InputError("--dicom: the orientation or spacing of an image is impossible")
    return _Grid(cosines[:3], cosines[3:], (spacing[0], spacing[1]), shape)


def _same(one: _Grid, other: _Grid) -> bool:
    return (
        one.shape == other.shape
        and np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-4)
        and np.allclose(one.along_row, other.along_row, atol=1e-3)
        and np.allclose(one.along_column, other.along_column, atol=1e-3)
    )


def _slice_at(
    slices: Sequence[_Slice],
    place_mm: float,
    headers: Sequence[tuple[Path, pydicom.Dataset]],
) -> _Slice:
    """Return the slice nearest to a place, or refuse one that no slice covers."""
    steps = np.diff([one.place_mm for one in slices])
    thickness = headers[0][1].get("SliceThickness")
    step = float(np.median(steps)) if len(steps) else float(thickness or 1.0)
    nearest = min(slices, key=lambda one: abs(one.place_mm - place_mm))
    if abs(nearest.place_mm - place_mm) > step / 2 + PLACE_TOLERANCE_MM:
        ends = (slices[0].place_mm, slices[-1].place_mm)
        raise InputError(
            f"--centre: z {place_mm:g} lies above or below the slices of this series, which reach "
            f"from {min(ends):g} to {max(ends):g} mm; all three are patient mm, not slice numbers"
        )
    return nearest


def _hu(path: Path) -> npt.NDArray[np.float32]:
    try:
        whole = pydicom.dcmread(path)
        stored = whole.pixel_array
        slope, intercept = float(whole.RescaleSlope), float(whole.RescaleIntercept)
    except (OSError, EOFError, ValueError, KeyError, AttributeError, RuntimeError, TypeError):
        raise InputError(
            "--dicom: the pixels of the slice cannot be decoded (cut short, or compressed in a "
            "way that needs a pydicom plugin)"
        ) from None
    if stored.ndim != 2:
        raise InputError("--dicom: holds images that are not (single-frame) CT")
    # Scanners pad the corners far below air.
    return np.clip(stored.astype(np.float32) * slope + intercept, *schema.LIMITS.hu)


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


@contextmanager
def _silent() -> Iterator[None]:
    """Keep pydicom's warnings and log lines, which quote values, off stderr."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
