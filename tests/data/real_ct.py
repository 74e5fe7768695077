"""Reads the real chest CT of the shared data: a NIfTI file, without a library for it."""

import gzip
import struct
from pathlib import Path

import numpy as np

SPACING_MM = 1.5


def chest_ct(shared_data: Path) -> np.ndarray:
    """Return HU (slice, row, column): columns to the left, rows to the back, slices to the head."""
    raw = gzip.decompress((shared_data / "ct_volume" / "chest_ct.nii.gz").read_bytes())
    shape = struct.unpack("<8h", raw[40:56])[1:4]
    (offset,) = struct.unpack("<f", raw[108:112])
    stored = np.frombuffer(raw, "<i2", offset=int(offset), count=int(np.prod(shape)))
    return stored.reshape(shape, order="F").transpose(2, 1, 0).astype(np.int16)
