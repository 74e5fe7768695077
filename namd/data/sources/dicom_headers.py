"""The headers of a folder's DICOM images, read and checked one file at a time.

What slices of one series mean together belongs to `dicom`, pixels to `dicom_pixels`. No value of an
attribute and no file name leaves this module in a message: a file is named by its number in the
order of names.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from namd.config.errors import InputError
from namd.data import schema

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
UNSPECIFIED_UNIT = "US"
"""RescaleType's code for an unspecified unit."""
SAME_IN_A_SERIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
DERIVED = frozenset(
    ("DERIVED", "SECONDARY", "MPR", "REFORMATTED", "MIP", "MINIP", "PROJECTION IMAGE", "AVERAGE")
)
"""Words of ImageType for images made from others."""
LARGEST_SIDE_PX = 4096
FARTHEST_MM = 1e5
COSINE = (-1.001, 1.001)
THICKNESS_MM = (0.05, 10.0)
SLOPE = (0.01, 100.0)
INTERCEPT_HU = (-65536.0, 65536.0)
NEEDED = (
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "RescaleSlope",
    "RescaleIntercept",
)


@dataclass(frozen=True)
class SliceHeader:
    """What one CT image says of itself.

    Attributes:
        path: Its file.
        label: `file 3 of 9`, for messages.
        same: Identifiers that a series shares, for comparing alone.
        shape: Rows, columns.
        spacing_mm: Distance of rows, of columns.
        cosines: Direction of a row, then of a column, in patient axes.
        origin_mm: Centre of the first pixel.
        thickness_mm: None if the file does not say it.
        slope: HU per stored value.
        intercept: HU of the stored value 0.
        unit_is_hu: False if the file leaves the unit of its values open.
        step_mm: What the file says of the distance of slices; None if it does not say it, NaN if
            that is no number.
        is_derived: Whether the file says that it is no slice of the scanner's own.
    """

    path: Path
    label: str
    same: tuple[str, ...]
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    cosines: tuple[float, ...]
    origin_mm: tuple[float, ...]
    thickness_mm: float | None
    slope: float
    intercept: float
    unit_is_hu: bool
    step_mm: float | None
    is_derived: bool


@dataclass(frozen=True)
class FolderHeaders:
    """The CT images of a folder and how many other files it holds."""

    images: tuple[SliceHeader, ...]
    num_passed_over: int


def read_headers(folder: Path) -> FolderHeaders:
    """Return the headers of all images in a folder and below.

    Files that are no DICOM and DICOM files without an image (a DICOMDIR, a report) are counted.

    Raises:
        InputError: There is no folder or no image, or an image is not one plain CT slice.
    """
    try:
        if not folder.is_dir():
            raise InputError("--dicom: no such folder; it takes the folder of one CT series")
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise InputError(f"--dicom: the folder cannot be listed ({error.strerror})") from None
    images = []
    with silent_pydicom():
        for number, path in enumerate(paths, start=1):
            label = f"file {number} of {len(paths)} (by name)"
            dataset = _read(path, label)
            if dataset is not None and _is_image(dataset, label):
                images.append(_checked(path, label, dataset))
    if not images:
        raise InputError("--dicom: no DICOM image in this folder")
    return FolderHeaders(tuple(images), len(paths) - len(images))


@contextmanager
def silent_pydicom() -> Iterator[None]:
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


def number(dataset: pydicom.Dataset, keyword: str, low: float, high: float, label: str) -> float:
    """Return the one number of an attribute. Raises InputError if it is not one within bounds."""
    return numbers(dataset, keyword, 1, low, high, label)[0]


def numbers(
    dataset: pydicom.Dataset, keyword: str, count: int, low: float, high: float, label: str
) -> tuple[float, ...]:
    """Return the numbers of an attribute.

    Raises InputError if they are not `count` finite numbers within [low, high].
    """
    stored = value_of(dataset, keyword, label)
    parts = list(stored) if isinstance(stored, MultiValue | list | tuple) else [stored]
    try:
        read = [math.nan if isinstance(part, bytes | bool) else float(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        read = []
    if len(read) != count or not all(low <= value <= high for value in read):
        numeral = "one number" if count == 1 else f"{count} numbers"
        within = f"{numeral} from {low:g} to {high:g}" if low < high else f"{low:g}"
        raise InputError(
            f"--dicom: {keyword} of {label} is not {within}; the file is damaged or no plain CT "
            "slice"
        )
    return tuple(read)


def integer(dataset: pydicom.Dataset, keyword: str, low: int, high: int, label: str) -> int:
    """Return the whole number of an attribute. Raises InputError if it is none within bounds."""
    read = number(dataset, keyword, low, high, label)
    if not read.is_integer():
        raise InputError(f"--dicom: {keyword} of {label} is not a whole number")
    return int(read)


def words(dataset: pydicom.Dataset, keyword: str, label: str) -> tuple[str, ...]:
    """Return the texts of an attribute, stripped; none if it is absent or empty.

    Raises InputError if it holds anything else.
    """
    stored = value_of(dataset, keyword, label)
    if stored is None:
        return ()
    parts = list(stored) if isinstance(stored, MultiValue | list | tuple) else [stored]
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"--dicom: {keyword} of {label} is not text; the file is damaged")
    return tuple(part.strip("\0 ") for part in parts)


def value_of(dataset: pydicom.Dataset, keyword: str, label: str) -> Any:  # noqa: ANN401 - of DICOM
    """Return the value of an attribute, None if it is absent or empty.

    Raises InputError if pydicom cannot read it.
    """
    try:
        stored = dataset[keyword].value if keyword in dataset else None
        empty = stored is None or (hasattr(stored, "__len__") and len(stored) == 0)
    except Exception:  # each of pydicom's parsers has errors of its own
        raise InputError(
            f"--dicom: {keyword} of {label} cannot be read; the file is damaged"
        ) from None
    return None if empty else stored


def _read(path: Path, label: str) -> pydicom.Dataset | None:
    """Return a file's header, None if it is no DICOM."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    except Exception:  # each of pydicom's parsers has errors of its own
        raise InputError(
            f"--dicom: {label} cannot be read as DICOM (damaged, cut short, or not permitted)"
        ) from None


def _is_image(dataset: pydicom.Dataset, label: str) -> bool:
    """Return whether a file claims to hold an image; a DICOMDIR and a report do not."""
    return "Rows" in dataset or words(dataset, "Modality", label) == ("CT",)


def _checked(path: Path, label: str, dataset: pydicom.Dataset) -> SliceHeader:
    _require_plain_ct(dataset, label)
    unit = tuple(word.upper() for word in words(dataset, "RescaleType", label))
    if unit not in ((), ("HU",), (UNSPECIFIED_UNIT,)):
        raise InputError(f"--dicom: the values of {label} are not in HU (RescaleType)")
    low, high = schema.LIMITS.spacing_mm
    cosines = numbers(dataset, "ImageOrientationPatient", 6, *COSINE, label)
    spacing = numbers(dataset, "PixelSpacing", 2, low, high, label)
    return SliceHeader(
        path=path,
        label=label,
        same=tuple("\\".join(words(dataset, name, label)) for name in SAME_IN_A_SERIES),
        shape=(
            integer(dataset, "Rows", 1, LARGEST_SIDE_PX, label),
            integer(dataset, "Columns", 1, LARGEST_SIDE_PX, label),
        ),
        spacing_mm=(spacing[0], spacing[1]),
        cosines=cosines,
        origin_mm=numbers(dataset, "ImagePositionPatient", 3, -FARTHEST_MM, FARTHEST_MM, label),
        thickness_mm=_thickness_mm(dataset, label),
        slope=number(dataset, "RescaleSlope", *SLOPE, label),
        intercept=number(dataset, "RescaleIntercept", *INTERCEPT_HU, label),
        unit_is_hu=unit != (UNSPECIFIED_UNIT,),
        step_mm=_step_mm(dataset, label),
        is_derived=not DERIVED.isdisjoint(
            word.upper() for word in words(dataset, "ImageType", label)
        ),
    )


def _require_plain_ct(dataset: pydicom.Dataset, label: str) -> None:
    kind = words(dataset, "SOPClassUID", label) or (CT_STORAGE,)
    if words(dataset, "Modality", label) != ("CT",) or kind != (CT_STORAGE,):
        raise InputError(f"--dicom: {label} is not (single-frame) CT")
    if words(dataset, "PhotometricInterpretation", label) != ("MONOCHROME2",):
        raise InputError(
            f"--dicom: {label} is not MONOCHROME2; inverted or colour images are refused"
        )
    if "LOCALIZER" in words(dataset, "ImageType", label):
        raise InputError(f"--dicom: {label} is a localizer; give the folder of one axial series")
    if value_of(dataset, "ModalityLUTSequence", label) is not None:
        raise InputError(
            f"--dicom: {label} maps its values by a table (modality LUT); only RescaleSlope and "
            "RescaleIntercept are read"
        )
    missing = [name for name in NEEDED if value_of(dataset, name, label) is None]
    if missing:
        raise InputError(f"--dicom: {label} lacks {', '.join(missing)}")


def _step_mm(dataset: pydicom.Dataset, label: str) -> float | None:
    """Return SpacingBetweenSlices, which nothing is computed from: damage refuses no series."""
    try:
        if value_of(dataset, "SpacingBetweenSlices", label) is None:
            return None
        return abs(number(dataset, "SpacingBetweenSlices", -FARTHEST_MM, FARTHEST_MM, label))
    except InputError:
        return math.nan


def _thickness_mm(dataset: pydicom.Dataset, label: str) -> float | None:
    if value_of(dataset, "SliceThickness", label) is None:
        return None
    return number(dataset, "SliceThickness", *THICKNESS_MM, label)
