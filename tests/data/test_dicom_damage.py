"""Whatever stands in an attribute: the same crop, a remark, or one line that quotes nothing."""

import logging
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from dicom_damage import element, replaced, span, value_bytes, vr_of  # noqa: E402 - by the path
from dicom_series import IDENTIFIERS, NODULE_MM, ORIGIN_MM, ROOT, write_series  # noqa: E402

from namd.config.errors import InputError  # noqa: E402
from namd.config.seeding import generator  # noqa: E402
from namd.data.sources.dicom import DicomCrop, read_crop  # noqa: E402

MARKER = "Zebedee"
ORIGIN = [ORIGIN_MM[0], ORIGIN_MM[1], NODULE_MM[2]]
NEEDED_NUMBERS = (
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
NEEDED_WORDS = ("Modality", "PhotometricInterpretation")
OPTIONAL = ("SliceThickness", "NumberOfFrames", "RescaleType", "ImageType", "SOPClassUID")
IDENTIFYING = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SOPInstanceUID",
    "StudyDate",
)
ATTRIBUTES = (
    *NEEDED_NUMBERS,
    *NEEDED_WORDS,
    *OPTIONAL,
    *IDENTIFYING,
    "ModalityLUTSequence",
    "PixelData",
)
NOT_A_NUMBER = {
    "text": (b"LO", f"{MARKER}^MRN".encode()),
    "NaN": (b"DS", b"NaN "),
    "inf": (b"DS", b"inf "),
    "-inf": (b"DS", b"-inf"),
    "above all floats": (b"DS", b"1e999 "),
    "400 digits": (b"DS", b"9" * 400),
    "400 digits, whole": (b"IS", b"9" * 400),
    "huge": (b"DS", b"1e30"),
    "far below": (b"DS", b"-1e30 "),
    "NaN in binary": (b"FD", struct.pack("<d", float("nan"))),
    "no character set has it": (b"LO", b"\xff\xfe\x80\x81"),
    "a UID": (b"UI", b"1.2.3\0"),
    "a person": (b"PN", f"{MARKER}^Quirina".encode()),
    "a date": (b"DA", b"19510317"),
    "a time, odd": (b"TM", f"{MARKER}1".encode()),
    "an age": (b"AS", b"999Q"),
    "a tag": (b"AT", b"\x10\x00\x10\x00"),
    "a sequence": (b"SQ", b""),
    "a broken sequence": (b"SQ", f"{MARKER}...".encode()),
    "binary cut short": (b"FD", b"\0\0\0"),
    "a URI": (b"UR", f"{MARKER}://1".encode()),
}
"""VR and bytes that no attribute of the reader may take for a number."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """One good slice, as bytes."""
    folder = write_series(
        tmp_path_factory.mktemp("whole"),
        count=1,
        origin=np.asarray(ORIGIN),
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        NumberOfFrames=1,
        RescaleType="HU",
        SpecificCharacterSet="ISO_IR 100",
    )
    (path,) = folder.iterdir()
    return path.read_bytes()


def damages(data: bytes, keyword: str) -> dict[str, bytes]:
    """Return files with one damaged element, by the damage's name."""
    vr, value = vr_of(data, keyword), value_bytes(data, keyword)
    begin, end = span(data, keyword)
    one = value.split(b"\\")[0]
    even = lambda text: text + b" " * (len(text) % 2)  # noqa: E731 - a short rule
    instead = {
        "missing": b"",
        "empty": element(keyword, vr, b""),
        "one more": element(keyword, vr, even(value.rstrip(b" \0") + b"\\" + (one or b"1"))),
        "the first alone": element(keyword, vr, even(one)),
        "two, or one and a half": element(keyword, vr, value[: 3 * len(value) // 4]),
        "bytes": element(keyword, b"OB", value),
        "words": element(keyword, b"OW", value),
        "unknown VR": element(keyword, b"ZZ", value),
        "no VR": element(keyword, b"\0\0", value),
        "longer than the file": element(keyword, vr, value, 0xFFFF),
        "longer than any file": element(keyword, b"UN", value, 0xFFFFFFF0),
        "of no length": element(keyword, b"UN", value, 0xFFFFFFFF),
        "of odd length": element(keyword, vr, value, len(value) + 1),
        **{name: element(keyword, *spoilt) for name, spoilt in NOT_A_NUMBER.items()},
    }
    files = {name: data[:begin] + part + data[end:] for name, part in instead.items()}
    return files | {"cut short there": data[: begin + 9], "cut short before": data[:begin]}


def outcome(folder: Path, data: bytes, recorded: list[object]) -> DicomCrop | str:
    """Read a folder of this one slice; what else is written, warned or logged is recorded."""
    path = folder / f"{MARKER}-MRN424242.dcm"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            return read_crop(folder, list(NODULE_MM), 0.5, 32)
        except InputError as error:
            return str(error)
        finally:
            recorded.extend(warned)
            path.unlink()


@pytest.mark.parametrize("keyword", ATTRIBUTES)
def test_a_damaged_attribute_gives_the_same_crop_a_remark_or_one_line(
    tmp_path, whole, keyword, capfd, caplog
):
    caplog.set_level(logging.DEBUG)
    recorded: list[object] = []
    good = outcome(tmp_path, whole, recorded)
    assert isinstance(good, DicomCrop)
    assert good.warnings == ()
    for name, data in damages(whole, keyword).items():
        found = outcome(tmp_path, data, recorded)
        if isinstance(found, DicomCrop):
            assert found.warnings or np.array_equal(found.hu, good.hu), name
            shown = " ".join(found.warnings)
        else:
            shown = found
            assert shown.startswith("--dicom: "), name
        for secret in (MARKER, "MRN", "Quirina", "19510317", ROOT, "ZZ", "99999"):
            assert secret not in shown, name
        assert "\n" not in shown
        assert len(shown) < 250
    assert recorded == []
    assert "".join(capfd.readouterr()) == ""
    assert caplog.text == ""


@pytest.mark.parametrize("keyword", [*NEEDED_NUMBERS, *NEEDED_WORDS, "SliceThickness"])
def test_what_is_no_number_or_word_is_refused_by_its_attribute(tmp_path, whole, keyword):
    assert isinstance(outcome(tmp_path, whole, []), DicomCrop)
    for name, (vr, value) in NOT_A_NUMBER.items():
        if value == b"" and keyword == "SliceThickness":
            continue  # it may be empty
        found = outcome(tmp_path, replaced(whole, keyword, element(keyword, vr, value)), [])
        assert isinstance(found, str), name
        named = {"PhotometricInterpretation": "MONOCHROME2", "Modality": "(single-frame) CT"}
        unreadable = vr == b"SQ" and value != b""
        assert (
            keyword in found
            or named.get(keyword, keyword) in found
            or (unreadable and "cannot be read as DICOM" in found)
        ), (name, found)


@pytest.mark.parametrize(
    "keyword", ["PatientName", "StudyDate", "SOPInstanceUID", "AccessionNumber"]
)
def test_an_attribute_that_is_not_read_may_hold_anything(tmp_path, whole, keyword):
    good = outcome(tmp_path, whole, [])
    assert isinstance(good, DicomCrop)
    for name, (vr, value) in NOT_A_NUMBER.items():
        if vr == b"SQ" and value:
            continue  # its items are parsed with the file
        found = outcome(tmp_path, replaced(whole, keyword, element(keyword, vr, value)), [])
        assert isinstance(found, DicomCrop), (name, found)
        assert np.array_equal(found.hu, good.hu)


def test_a_file_cut_or_changed_anywhere_is_read_or_refused_in_one_line(tmp_path, whole, capfd):
    draw = generator("test-dicom-damage")
    head = span(whole, "PixelData")[0] + 12
    files = [whole[:end] for end in (*range(0, head, 23), head + 1, len(whole) - 1)]
    for _ in range(250):
        data = bytearray(whole)
        for place in draw.integers(128, head, draw.integers(1, 4)):
            data[place] = draw.integers(256)
        files.append(bytes(data))
    recorded: list[object] = []
    for data in files:
        found = outcome(tmp_path, data, recorded)
        if isinstance(found, str):
            assert "\n" not in found
            assert not any(text in found for text in (MARKER, *IDENTIFIERS.values()))
    assert recorded == []
    assert "".join(capfd.readouterr()) == ""
