"""The pixels of one DICOM slice in HU. What its header means belongs to `dicom_headers`."""

import numpy as np
import numpy.typing as npt
import pydicom

from namd.config.errors import InputError
from namd.data import schema
from namd.data.sources.dicom_headers import SliceHeader, integer, silent_pydicom, value_of

BITS_STORED = (12, 16)
"""What DICOM allows in a CT image, in words of 16 bits."""
MAX_SHARE_ABOVE = 0.25
"""Share of a slice that may lie above the highest HU; metal is far less."""


def read_hu(header: SliceHeader) -> npt.NDArray[np.float32]:
    """Return a slice in HU, clipped to what a cohort may hold (scanners pad far below air).

    Raises:
        InputError: The pixels cannot be decoded, do not fit the header, or are not in HU.
    """
    with silent_pydicom():
        dataset = _read(header)
        _require_plain_pixels(dataset, header)
        stored = _decoded(dataset, header)
    if stored.shape != header.shape:
        raise InputError(f"--dicom: {header.label} holds another image than its header says")
    low, high = schema.LIMITS.hu
    hu = stored.astype(np.float64) * header.slope + header.intercept
    if np.mean(hu > high) > MAX_SHARE_ABOVE or hu.max() < low or hu.min() == hu.max():
        raise InputError(
            f"--dicom: the values of {header.label} are not HU of a CT; RescaleSlope, "
            "RescaleIntercept or the pixels are wrong"
        )
    return np.clip(hu, low, high).astype(np.float32)


def _read(header: SliceHeader) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(header.path)
    except Exception:  # each of pydicom's parsers has errors of its own
        raise InputError(f"--dicom: {header.label} cannot be read again") from None


def _require_plain_pixels(dataset: pydicom.Dataset, header: SliceHeader) -> None:
    """Refuse colour, several frames, and words of another length than CT has."""
    label = header.label
    if value_of(dataset, "NumberOfFrames", label) is not None:
        integer(dataset, "NumberOfFrames", 1, 1, label)
    integer(dataset, "SamplesPerPixel", 1, 1, label)
    integer(dataset, "BitsAllocated", 16, 16, label)
    low, high = BITS_STORED
    bits = integer(dataset, "BitsStored", low, high, label)
    if integer(dataset, "HighBit", low - 1, high - 1, label) != bits - 1:
        raise InputError(f"--dicom: HighBit of {label} does not fit its BitsStored")
    integer(dataset, "PixelRepresentation", 0, 1, label)
    pixels = value_of(dataset, "PixelData", label)
    if not isinstance(pixels, bytes):
        raise InputError(f"--dicom: {label} has no pixels")
    if not _compressed(dataset) and len(pixels) != 2 * header.shape[0] * header.shape[1]:
        raise InputError(
            f"--dicom: the pixels of {label} cannot be decoded: they are fewer or more than Rows "
            "and Columns say"
        )


def _compressed(dataset: pydicom.Dataset) -> bool:
    try:
        return bool(dataset.file_meta.TransferSyntaxUID.is_compressed)
    except (AttributeError, ValueError):
        return False


def _decoded(dataset: pydicom.Dataset, header: SliceHeader) -> npt.NDArray[np.generic]:
    try:
        return np.asarray(dataset.pixel_array)
    except Exception:  # each codec has errors of its own
        raise InputError(
            f"--dicom: the pixels of {header.label} cannot be decoded (cut short, or compressed "
            "in a way that needs a pydicom plugin)"
        ) from None
