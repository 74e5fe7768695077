"""Whatever a scan holds, and whatever its files are called, `namd predict` writes none of it."""

import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR

HERE = Path(__file__).parent
DATA = str(HERE.parent / "data")
if DATA not in sys.path:
    sys.path.insert(0, DATA)

from dicom_damage import element, replaced  # noqa: E402 - found by the path above
from dicom_series import IDENTIFIERS, NODULE_MM, ROOT, write_series  # noqa: E402

from namd.cli.main import main  # noqa: E402
from namd.pipeline.prediction import Prediction  # noqa: E402
from namd.pipeline.store import open_store  # noqa: E402

MARKER = "Zebedee"
NUMBER = "31337"
READ = (
    "Modality",
    "SOPClassUID",
    "PhotometricInterpretation",
    "ImageType",
    "ModalityLUTSequence",
    "RescaleType",
    "RescaleSlope",
    "RescaleIntercept",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "SamplesPerPixel",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "SpecificCharacterSet",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
)
NOT_READ = ("PatientName", "SOPInstanceUID", "StudyDate", "PatientAge", "InstanceNumber")
SECRETS = (MARKER, NUMBER, ROOT, *IDENTIFIERS.values())


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Return a function that predicts with a stand-in for the model, and all that it wrote."""
    monkeypatch.delenv("NAMD_STORE", raising=False)
    store = open_store(str(tmp_path / "store"))
    recorded = {"config": {}, "method": "namd", "stages": [], "crops": {"spacing_mm": 0.5}}
    store.backend.replace(f"runs/{'a' * 64}/run.json", json.dumps(recorded).encode())
    (tmp_path / "ehr.json").write_text('{"age": 61}')
    monkeypatch.setattr("namd.pipeline.finished_run.require_drawable", lambda *_: None)
    monkeypatch.setattr("namd.pipeline.prediction.predict", drawn)

    def predict(folder: Path) -> tuple[int, Path]:
        out = tmp_path / "out"
        words = ["--run", "aaaa", "--dicom", str(folder), "--ehr", str(tmp_path / "ehr.json")]
        words += ["--centre", ",".join(map(str, NODULE_MM)), "--out", str(out), "--draws", "2"]
        return main(["predict", *words, "--store", str(tmp_path / "store"), "--json"]), out

    return predict


def drawn(_store, _run, hu, _spacing_mm, record, num_draws, progress) -> Prediction:
    """Stand in for the model: the baseline again and again."""
    for index in range(num_draws):
        progress(index + 1, num_draws)
    baseline = (np.clip(hu, -1000, 400) / 700 + 3 / 7).astype(np.float32)
    chance = np.linspace(0.2, 0.4, num_draws)
    return Prediction(baseline, np.stack([baseline] * num_draws), chance, "a", record.missing)


def series(folder: Path) -> Path:
    """Write three slices under a folder and under names that are somebody's."""
    write_series(folder, count=3, origin=np.array([-60.0, -55.0, NODULE_MM[2] - 2.5]))
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{MARKER}-{number}-{ROOT}.dcm")
    return folder


def plant(folder: Path, keyword: str, vr: bytes, value: bytes) -> None:
    for path in folder.iterdir():
        path.write_bytes(replaced(path.read_bytes(), keyword, element(keyword, vr, value)))


def written(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in out.rglob("*") if path.is_file()]


def assert_silent(code: int, out: Path, shown, logged: str, warned: list[object]) -> None:
    assert code in (0, 2)
    assert warned == []
    answer = json.loads(shown.out.splitlines()[-1])
    assert ("error" in answer) == (code == 2)
    assert out.exists() == (code == 0)
    for secret in SECRETS:
        assert secret not in shown.out + shown.err + logged
        assert not any(secret.encode() in content for content in written(out))
    assert "Traceback" not in shown.err


def plantings(keyword: str) -> list[tuple[bytes, bytes]]:
    text = f"{MARKER}^{MARKER} {NUMBER} "
    right = dictionary_VR(keyword).split(" ")[0].encode()
    return [
        (right, text.encode()),
        (b"LO", text.encode() + b" "),
        (b"PN", text.encode() + b" "),
        (b"UN", text.encode() + b" "),
        (b"OB", text.encode() + b" "),
        (b"DS", f"{NUMBER} ".encode()),
        (b"DS", rf"{NUMBER}\{NUMBER}\{NUMBER} ".encode()),
        (b"UI", f"{ROOT}.{NUMBER}".encode()),
    ]


def sketched(_baseline, _draws, chances, path, **about) -> None:
    """Stand in for the picture, which takes a second: write what it would be given to write."""
    path.write_text(f"{chances} {about}")


@pytest.mark.parametrize("keyword", [*READ, *NOT_READ])
def test_no_value_of_any_attribute_is_written(tmp_path, asked, keyword, capfd, caplog, monkeypatch):
    monkeypatch.setattr("analysis.prediction_figure.prediction_figure", sketched)
    caplog.set_level(logging.DEBUG, logger="pydicom")
    codes = []
    for number, (vr, value) in enumerate(plantings(keyword)):
        folder = series(tmp_path / f"{MARKER}{number}")
        plant(folder, keyword, vr, value)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            code, out = asked(folder)
        pydicom_warned = [one for one in warned if "pydicom" in str(one.filename)]
        assert_silent(code, out, capfd.readouterr(), caplog.text, pydicom_warned)
        codes.append(code)
        if code == 0:
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
    if keyword in NOT_READ:
        assert set(codes) == {0}


def test_a_good_series_is_answered_and_odd_files_beside_it_are_not_named(
    tmp_path, asked, capfd, caplog
):
    folder = series(tmp_path / MARKER)
    (folder / f"{MARKER}.txt").write_text(MARKER)
    copied = next(path for path in sorted(folder.iterdir()) if path.suffix == ".dcm")
    (folder / f"{MARKER} copy.dcm").write_bytes(copied.read_bytes())
    code, out = asked(folder)
    shown = capfd.readouterr()
    assert_silent(code, out, shown, caplog.text, [])
    answer = json.loads(shown.out.splitlines()[-1])
    assert code == 0
    assert [line.split(" ", 1)[1] for line in answer["warnings"][:2]] == [
        "of the files hold no DICOM image: passed over",
        "of the files equal another one to the byte: left out",
    ]
    for line in answer["warnings"]:
        assert f"warning: {line}" in shown.err
    assert {path.name for path in out.iterdir()} == {
        "draws.npz",
        "prediction.png",
        "prediction.json",
    }
    assert json.loads((out / "prediction.json").read_text())["warnings"] == answer["warnings"]


def test_a_scan_named_in_place_of_its_folder_is_not_repeated(tmp_path, asked, capfd):
    folder = series(tmp_path / MARKER)
    for wrong in (next(folder.iterdir()), folder / "absent"):
        code, out = asked(wrong)
        assert code == 2
        assert_silent(code, out, capfd.readouterr(), "", [])


def test_a_place_without_a_nodule_is_answered_with_a_remark(tmp_path, asked, capfd):
    folder = series(tmp_path / MARKER)
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.PixelData = np.full(slice_.Rows * slice_.Columns, 700, np.uint16).tobytes()
        slice_.PixelData = slice_.PixelData[:-2] + b"\x90\x01"
        pydicom.dcmwrite(path, slice_)
    code, out = asked(folder)
    shown = capfd.readouterr()
    assert code == 0
    assert any("check the place" in line for line in json.loads(shown.out)["warnings"])
    assert "check the place" in shown.err
    assert "check the place" in (out / "prediction.json").read_text()


def test_a_full_disk_leaves_nothing_behind(tmp_path, asked, capfd, monkeypatch):
    folder = series(tmp_path / MARKER)

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("analysis.prediction_figure.prediction_figure", full)
        code, out = asked(folder)
    assert code == 2
    assert "cannot be written (No space left on device)" in capfd.readouterr().err
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "store", "ehr.json"}
    assert asked(folder)[0] == 0
