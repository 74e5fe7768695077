"""Puts other bytes in the place of one element of a DICOM file, whatever DICOM allows there."""

import struct

from pydicom.datadict import dictionary_VR, tag_for_keyword

LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN", b"SQ", b"UT", b"UC", b"UR")
PREAMBLE = 132


def element(keyword: str, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an element in explicit little endian; `length` is what its header claims."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    claimed = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in LONG_VRS:
        return head + struct.pack("<HI", 0, claimed) + value
    return head + struct.pack("<H", claimed & 0xFFFF) + value


def span(data: bytes, keyword: str) -> tuple[int, int]:
    """Return where an element begins and ends in a file; equal if it is to be inserted."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    at = PREAMBLE
    while at < len(data):
        group, number, vr, length = struct.unpack_from("<HH2sH", data, at)
        head = 8
        if vr in LONG_VRS:
            head, (length,) = 12, struct.unpack_from("<I", data, at + 8)
        here = group << 16 | number
        if here >= tag:
            return at, at + (head + length if here == tag else 0)
        at += head + length
    return at, at


def replaced(data: bytes, keyword: str, instead: bytes) -> bytes:
    """Return a file with other bytes in the place of an element."""
    begin, end = span(data, keyword)
    return data[:begin] + instead + data[end:]


def value_bytes(data: bytes, keyword: str) -> bytes:
    """Return the value of an element as it lies in the file; empty if it is not there."""
    begin, end = span(data, keyword)
    head = 12 if data[begin + 4 : begin + 6] in LONG_VRS else 8
    return data[begin + head : end]


def vr_of(data: bytes, keyword: str) -> bytes:
    """Return the VR under which an element is stored, or that of the dictionary."""
    begin, end = span(data, keyword)
    if begin < end:
        return data[begin + 4 : begin + 6]
    return dictionary_VR(keyword).encode()
