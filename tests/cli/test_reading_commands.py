"""Commands that read write nothing: not into a store, not where none is, not on a full disk."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_studies as toys

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "analysis"))

from made_study import made_ablation
from toy_run import configure

from namd.api.publishing import _Stages
from namd.cli import main as front
from namd.config.errors import InputError
from namd.config.whole_files import filled_whole
from namd.pipeline import graph
from namd.pipeline.finished_run import FinishedRun, find_artifact
from namd.pipeline.store import open_store, view_store
from namd.storage.stage_names import StageName

ABLATION = {**toys.ABLATION, "base": {"preset": "tiny", "method": "namd"}, "seeds": 1}
NAME = ABLATION["name"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A store with a finished study, its file, and another folder to stand in."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.delenv("NAMD_STORE", raising=False)
    (tmp_path / "here").mkdir()
    (tmp_path / "cohort").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", lambda *_, **__: tmp_path / "cohort")
    monkeypatch.setattr(graph, "_cohort_digest", lambda _cohort, _digests: lambda part: str(part))
    monkeypatch.setattr("analysis.study_report._figures", lambda *_: {})
    open_store(str(tmp_path / "store"))
    toys.recorded_study(tmp_path / "store", ABLATION)
    toys.write_file(tmp_path, ABLATION)
    return tmp_path


def commands(place, store):
    """Reading commands about a store, as words."""
    file = str(place / f"{NAME}.yaml")
    many = [
        ["study", "plan", file, "--cohort", "x", "--no-calibration"],
        ["run", "--preset", "tiny", "--cohort", "x", "--plan"],
        ["study", "status", NAME],
        ["study", "list"],
        ["study", "watch", NAME],
        ["study", "best", NAME],
        ["study", "logs", NAME, "full/0"],
        ["study", "repair", NAME, "--dry-run"],
        ["report", NAME, "--out", str(place / "report")],
        ["store", "ls"],
        ["store", "verify"],
        ["store", "gc", "--dry-run"],
    ]
    return [[*words, "--store", str(store)] for words in many]


def traces(folder):
    """Every name, and when each folder and file last changed: a probe leaves its mark there."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_no_reading_command_changes_the_store(place, capsys):
    before = traces(place / "store")
    for words in commands(place, place / "store"):
        assert front.main(words) == 0, (words, capsys.readouterr().err)
        assert traces(place / "store") == before, words


def test_a_store_that_may_only_be_read_is_read(place, capsys):
    store = place / "store"
    mounted = subprocess.run(
        ["mount", "--bind", "-o", "ro", store, store], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a folder read-only")
    try:
        if not _refuses(store):
            subprocess.run(["mount", "-o", "remount,ro,bind", store], check=True)
        assert _refuses(store)
        for words in commands(place, store):
            assert front.main(words) == 0, (words, capsys.readouterr().err)
    finally:
        subprocess.run(["umount", store], check=True)


def _refuses(folder):
    try:
        (folder / "x").touch()
    except OSError as error:
        return error.errno == errno.EROFS
    (folder / "x").unlink()
    return False


def test_what_is_not_there_is_not_made(place, capsys):
    absent = place / "absent" / "store"
    for words in commands(place, absent):
        code = front.main(words)
        printed = capsys.readouterr().err
        if "plan" in words or "--plan" in words:
            assert code == 0
            assert f"store {absent}: nothing is there yet" in printed
        else:
            assert code == 2
            assert printed.count("\n") == 1
        assert not (place / "absent").exists()


def test_a_plan_of_an_absent_store_is_the_plan_of_an_empty_one(place, capsys):
    plans = []
    for store in (place / "absent", place / "empty"):
        if store.name == "empty":
            store.mkdir()
        words = ["study", "plan", str(place / f"{NAME}.yaml"), "--cohort", "x", "--json"]
        assert front.main([*words, "--no-calibration", "--store", str(store)]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert plans[0] == plans[1]
    assert plans[0]["stages_in_store"] == 0
    assert list((place / "empty").iterdir()) == []


def test_a_folder_with_other_things_is_no_store_to_look_into(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other things"):
        view_store(str(tmp_path))
    (tmp_path / "thesis.txt").unlink()
    assert view_store(str(tmp_path)).is_empty
    open_store(str(tmp_path))
    assert not view_store(str(tmp_path)).is_empty


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    before, os.fsync = os.fsync, lambda _descriptor: None
    made = made_ablation(tmp_path_factory.mktemp("study"), seeds=1, cases=60)
    made.close()
    os.fsync = before
    return made


def report(study, out):
    return front.main(["report", "made", "--store", str(study.root), "--out", str(out)])


@pytest.mark.parametrize("name", ["payload/scores.parquet", "payload/sets.json", "manifest.json"])
def test_a_report_of_changed_scores_is_refused(study, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("analysis.study_report._figures", lambda *_: {})
    path = next((study.root / "scores-test").glob(f"*/attempts/a/{name}"))
    before = path.read_bytes()
    path.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    assert report(study, tmp_path / "r") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"scores-test/{path.parents[3 if '/' in name else 2].name[:12]} is damaged" in printed
    assert "namd store rm scores-test/" in printed
    assert not (tmp_path / "r").exists()
    path.unlink()
    assert report(study, tmp_path / "r") == 2
    path.write_bytes(before)
    assert report(study, tmp_path / "r") == 0


@pytest.mark.parametrize("fits", range(5))
def test_a_report_on_a_full_disk_leaves_what_was_there(study, fits, tmp_path, capsys, monkeypatch):
    """Whichever file the disk fills up at, the last report stays whole."""
    monkeypatch.setattr("analysis.study_report._figures", lambda *_: {})
    out = tmp_path / "a" / "r"
    write, left = Path.write_text, [fits]

    def full(path, text, *more, **options):
        left[0] -= 1
        if left[0] < 0:
            write(path, text[: len(text) // 2], *more, **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, text, *more, **options)

    monkeypatch.setattr(Path, "write_text", full)
    assert report(study, out) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"{out}: cannot be written (No space left on device)" in printed
    assert not (tmp_path / "a").exists()
    left[0] = 1000
    assert report(study, out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    left[0] = fits
    assert report(study, out) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_files_of_others_stay_beside_those_that_are_written(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with filled_whole(tmp_path) as partial:
        (partial / "figures").mkdir()
        (partial / "figures" / "a.svg").write_text("a")
        assert not (tmp_path / "figures").exists()
    assert (tmp_path / "figures" / "a.svg").read_text() == "a"
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_listing_shows_a_damaged_artifact_and_run_beside_the_others(toy_store, capsys):
    store, result = toy_store
    folder = result.artifacts["encode"].folder
    (folder / "manifest.json").write_text("{")
    (store.backend.folder / "runs" / result.run / "run.json").write_text("{")
    assert front.main(["store", "ls", "--json", "--store", store.backend.name]) == 0
    captured = capsys.readouterr()
    states = {a["stage"]: a["state"] for a in json.loads(captured.out)["artifacts"]}
    assert (states["encode"], states["train"]) == ("damaged", "published")
    assert "encode/" in captured.err
    assert f"runs/{result.run}/run.json is unreadable" in captured.err
    assert front.main(["store", "rm", f"runs/{result.run}", "--store", store.backend.name]) == 0
    capsys.readouterr()
    assert front.main(["store", "ls", "--store", store.backend.name]) == 0
    assert "run.json" not in capsys.readouterr().err


def test_what_is_shown_in_wandb_is_checked(toy_store):
    store, result = toy_store
    artifact = result.artifacts["train"]
    found = _Stages(store.backend.name)
    assert list(found.steps(StageName("train"), artifact.key)) == artifact.metrics()
    assert found.steps(StageName("train"), "0" * 64) == ()
    path = artifact.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(InputError, match=r"train/.* is damaged .*metrics\.jsonl has changed"):
        found.steps(StageName("train"), artifact.key)


def test_a_run_that_predicts_finds_no_damaged_artifact(toy_store):
    store, result = toy_store
    artifact = result.artifacts["encode"]
    run = FinishedRun(result.run, configure(), {"encode": artifact.key}, 0.5)
    assert find_artifact(store, run, "encode") == artifact
    path = artifact.payload / "z.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match=r"encode/.* is damaged"):
        find_artifact(store, run, "encode")


def test_logs_show_no_changed_metrics(place, capsys):
    store = place / "store"
    assert front.main(["study", "logs", NAME, "full/0", "--json", "--store", str(store)]) == 0
    (key,) = (s["key"] for s in json.loads(capsys.readouterr().out)["stages"] if not s["cached"])
    toys.put_metrics(store, "vae", key, [{"index": 1, "loss": 0.5}])
    words = ["study", "logs", NAME, "full/0", "--store", str(store)]
    assert front.main(words) == 0
    assert "loss 0.5" in capsys.readouterr().out
    path = store / "vae" / key / "attempts" / "a1" / "metrics.jsonl"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    assert front.main(words) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"vae/{key[:12]} is damaged (metrics.jsonl has changed)" in printed
