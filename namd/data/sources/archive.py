"""The crops source's npz: what it claims is checked before any of it is unpacked.

Which array is used for what is `namd.data.sources.crops`' to say.
"""

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from namd.config.errors import InputError

Arrays = dict[str, npt.NDArray[Any]]

ARRAY_SUFFIX = ".npy"
CROPS = ("hu", "followup_hu")
STACKS = ("hu", "followup_hu", "mask", "votes")
NAMES = (*STACKS, "has_followup", "nodule_id")

MAX_SIDE_PX = 4096
BOMB_BYTES = 2**30
BOMB_RATIO = 100
"""Measured crops are noise and shrink to a half; only more than a gigabyte of them is doubted."""
MEMORY_SHARE = 0.5
"""Of the free memory that the arrays may take: they are copied when cases are chosen."""

_KINDS = {"hu": "iuf", "followup_hu": "iuf", "mask": "biuf", "votes": "biuf"}
_KINDS |= {"has_followup": "biuf", "nodule_id": "iufUS"}
_KIND_NAMES = {"b": "booleans", "c": "complex numbers", "U": "text", "S": "text", "V": "records"}
_KIND_NAMES |= {"M": "dates", "m": "durations", "i": "integers", "u": "integers", "f": "floats"}

_BROKEN_ARCHIVE = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_BROKEN_HEADER = (
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
    EOFError,
    AttributeError,
)


@dataclass(frozen=True)
class _Entry:
    """One array's place in the archive and what its header claims."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_archive(path: Path) -> tuple[Arrays, list[str]]:
    """Return the arrays of an npz that the source knows, and the names of all others.

    Raises:
        InputError: the file is no npz of plain arrays, claims more than it holds or than fits
            into memory, or an array is of the wrong kind or shape.
    """
    try:
        # np.load takes other files for arrays or pickles, and speaks of unsafe loading.
        if path.is_file() and not zipfile.is_zipfile(path):
            raise InputError(f"{path}: not an npz, or cut short; write one with numpy.savez")
        with zipfile.ZipFile(path) as archive:
            entries, unused = _read_entries(path, archive)
            _require_shapes(path, entries)
            _require_memory(path, entries)
            arrays = {name: _read_array(path, archive, name, entries[name]) for name in entries}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --images takes an npz") from None
    except _BROKEN_ARCHIVE as error:
        raise InputError(f"{path}: not an npz of plain arrays ({_reason(error)})") from error
    return arrays, unused


def _read_entries(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, _Entry], list[str]]:
    names = [info.filename for info in archive.infolist()]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(f"{path}: {doubled[0]} is in it more than once; write it anew")
    entries: dict[str, _Entry] = {}
    unused = []
    for info in archive.infolist():
        name = info.filename.removesuffix(ARRAY_SUFFIX)
        if info.flag_bits & 1:
            raise InputError(f"{path}: {name} is encrypted; write the npz with numpy.savez")
        if name == info.filename:
            unused.append(name)
            continue
        entry = _read_entry(path, archive, name, info)
        if name in NAMES:
            entries[name] = entry
        else:
            unused.append(name)
    if "hu" not in entries:
        held = ", ".join([*entries, *unused]) or "nothing"
        raise InputError(f"{path}: no array `hu`; it holds {held}")
    return entries, unused


def _read_entry(path: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> _Entry:
    with archive.open(info) as stream:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                version = np.lib.format.read_magic(stream)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = read(stream)
        except _BROKEN_HEADER as error:
            raise InputError(
                f"{path}: {name} is none of the plain arrays that numpy.savez writes"
            ) from error
        start = stream.tell()
    if dtype.hasobject:
        raise InputError(f"{path}: {name} holds objects; give plain arrays of numbers")
    claimed = start + dtype.itemsize * _product(shape)
    if min(shape, default=0) < 0 or claimed != info.file_size:
        raise InputError(
            f"{path}: {name} claims shape {_short(shape)} of {dtype}, which is not what is stored; "
            "write it anew with numpy.savez"
        )
    return _Entry(info, shape, dtype)


def _require_shapes(path: Path, entries: dict[str, _Entry]) -> None:
    shape = entries["hu"].shape
    for name, entry in entries.items():
        kind = entry.dtype.kind
        if kind not in _KINDS[name]:
            raise InputError(
                f"{path}: {name} holds {_KIND_NAMES.get(kind, str(entry.dtype))}; it must be "
                f"{'Hounsfield units' if name in CROPS else 'numbers'}"
            )
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"{path}: hu has shape {_short(shape)}; it must be (cases, size, size)")
    if not shape[0] or not 0 < shape[1] <= MAX_SIDE_PX:
        raise InputError(
            f"{path}: hu has shape {_short(shape)}; give at least 1 crop, of 1 to {MAX_SIDE_PX} "
            "pixels a side"
        )
    for name, entry in entries.items():
        expected = shape if name in STACKS else shape[:1]
        if entry.shape != expected:
            raise InputError(
                f"{path}: {name} has shape {_short(entry.shape)}, hu has {_short(shape)}"
            )


def _require_memory(path: Path, entries: dict[str, _Entry]) -> None:
    """Refuse an archive that would fill the memory, and crops that cannot be measured ones."""
    for name in CROPS:
        info = entries[name].info if name in entries else None
        if info and info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
            raise InputError(
                f"{path}: {name} unpacks {info.compress_size} bytes to {info.file_size}; crops of "
                "a scan do not shrink so far"
            )
    needed = sum(entry.info.file_size for entry in entries.values())
    free = int(MEMORY_SHARE * psutil.virtual_memory().available)
    if needed > free:
        raise InputError(
            f"{path}: unpacks to {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory "
            "can be used; split it into several cohorts or use a larger machine"
        )


def _read_array(path: Path, archive: zipfile.ZipFile, name: str, entry: _Entry) -> npt.NDArray[Any]:
    try:
        with archive.open(entry.info) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except MemoryError as error:
        raise InputError(f"{path}: {name} does not fit into memory") from error


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= int(length)
    return product


def _short(shape: tuple[int, ...]) -> str:
    return str(tuple(int(length) for length in shape)) if len(str(shape)) < 80 else "too long"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
