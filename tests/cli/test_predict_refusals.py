"""What `namd predict` can know without torch it refuses before torch is imported."""

import json
import subprocess
import sys

import pytest

from namd.cli.main import main
from namd.pipeline.finished_run import finished_run, require_drawable
from namd.pipeline.store import open_store

HEAVY = ("torch", "ray", "numpy", "pandas", "pyarrow", "matplotlib", "scipy")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A store with the record of a run whose artifacts are gone, a record and a DICOM folder."""
    monkeypatch.delenv("NAMD_STORE", raising=False)
    store = open_store(str(tmp_path / "store"))
    recorded = {"config": {}, "method": "namd", "stages": [], "crops": {"spacing_mm": 0.5}}
    store.backend.replace(f"runs/{'a' * 64}/run.json", json.dumps(recorded).encode())
    (tmp_path / "dicom").mkdir()
    (tmp_path / "ehr.json").write_text('{"age": 61}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "long.json").write_text(f'{{"age": {"9" * 400}}}')
    (tmp_path / "Doe^Jane.dcm").write_bytes(b"")
    return tmp_path


def words_of(place, **changes):
    options = {
        "run": "aaaa",
        "dicom": place / "dicom",
        "centre": "1,2,3",
        "ehr": place / "ehr.json",
        "out": place / "out",
        "store": place / "store",
        **changes,
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


CHANGES = [
    ({"centre": "1,2"}, "--centre: give three numbers"),
    ({"centre": "1,2,nan"}, "--centre: give three numbers"),
    ({"centre": "-inf,2,3"}, "--centre: give three numbers"),
    ({"centre": "1,2,3,4"}, "--centre: give three numbers"),
    ({"centre": "-1,,3"}, "--centre: give three numbers"),
    ({"centre": "-1e999,2,3"}, "--centre: give three numbers"),
    ({"draws": 0}, "--draws 0: give 1 or more"),
    ({"draws": "-1"}, "--draws -1: give 1 or more"),
    ({"draws": "-1e3"}, "--draws: invalid int value"),
    ({"dicom": "absent"}, "--dicom: no such folder"),
    ({"dicom": "Doe^Jane.dcm"}, "--dicom: no such folder"),
    ({"dicom": "Doe" * 2000}, "--dicom: no such folder"),
    ({"out": "o" * 6000}, "a path has at most 4000 characters"),
    ({"out": "list.json"}, "list.json: exists and is not empty"),
    ({"cohort": "absent"}, "--cohort absent: no such folder"),
    ({"ehr": "absent.json"}, "absent.json: no such file"),
    ({"ehr": "list.json"}, "list.json: holds no JSON object"),
    ({"ehr": "long.json"}, "long.json: age is no number, or none that is finite"),
    ({"ehr": "dicom"}, "dicom: cannot be read"),
    ({"store": "absent"}, "no store there"),
    ({"run": "b"}, "--run b: no finished run"),
    ({}, "--run aaaaaaaaaaaa: its vae is no longer in the store"),
]


def test_predict_refuses_bad_arguments_without_torch(place):
    asked = [words_of(place, **changes) for changes, _ in CHANGES]
    code = (
        "import json, sys; from namd.cli.main import main;"
        f"codes = [main(['predict', *words]) for words in json.loads({json.dumps(asked)!r})];"
        f"print(json.dumps([codes, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=place
    )
    codes, imported = json.loads(done.stdout.splitlines()[-1])
    assert codes == [2] * len(CHANGES)
    lines = done.stderr.splitlines()
    assert len(lines) == len(CHANGES)
    for line, (_, message) in zip(lines, CHANGES, strict=True):
        assert message in line
        assert "Doe" not in line
    assert imported == []
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    "centre",
    ["-5.25e+01,14,-120", "-.5,1,2", "-1,-2,-3", "-52.5, 14, -120", "5e1,-1E-2,+3", " 1,2,3"],
)
def test_a_centre_may_begin_with_a_minus(place, centre, capsys):
    words = ["predict", *words_of(place, centre=centre)]
    assert main(words) == 2
    # All that can be refused before the run is accepted.
    assert "its vae is no longer in the store" in capsys.readouterr().err
    assert main(["predict", *words_of(place, centre=f"{centre},9")]) == 2
    assert "--centre: give three numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cohort", "build", "phantom", "--out", "x", "--seed", "-1e3"], "invalid int value"),
        (["study", "watch", "x", "--interval", "-1e3"], "--interval"),
        (["study", "best", "x", "--proposal", "-0x1"], "invalid int value"),
        (["cohort", "build", "crops", "--spacing", "-5e-1", "--sed", "1"], "required"),
    ],
)
def test_a_negative_value_of_any_option_is_judged_as_a_value(words, message, capsys):
    assert main(words) == 2
    refused = capsys.readouterr().err
    assert message in refused
    assert "expected one argument" not in refused


def test_an_option_that_is_none_is_still_refused(place, capsys):
    assert main(["predict", *words_of(place), "-x"]) == 2
    assert "unrecognized arguments: -x" in capsys.readouterr().err


def test_a_run_with_its_artifacts_is_drawable(place, monkeypatch):
    store = open_store(str(place / "store"))
    run = finished_run(store, "aaaa")
    monkeypatch.setattr(
        "namd.pipeline.finished_run.find_artifact", lambda _store, _run, label: label
    )
    require_drawable(store, run)
    assert (run.spacing_mm, run.image_size) == (0.5, 64)


@pytest.mark.parametrize(("about", "simulated"), [({"simulated": True}, True), ({}, False)])
def test_a_run_knows_whether_it_learned_from_simulated_followups(place, about, simulated):
    store = open_store(str(place / "store"))
    recorded = {"config": {}, "method": "namd", "stages": [], "about": about}
    store.backend.replace(f"runs/{'b' * 64}/run.json", json.dumps(recorded).encode())
    assert finished_run(store, "bbbb").simulated is simulated
    assert not finished_run(store, "aaaa").simulated
