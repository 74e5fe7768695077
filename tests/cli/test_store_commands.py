"""`namd store` and the progress of a run, over a store that the toy method filled."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import toy_studies as toys
from toy_run import cohort_digest, configure, toy_run

from namd.cli.main import main
from namd.cli.progress import PlainReporter, RichReporter, forecast
from namd.ledger.pins import pin
from namd.pipeline.estimate import estimator
from namd.pipeline.graph import make_plan
from namd.storage.local import LocalStorage
from namd.storage.stage_names import StageName
from namd.study.spec import parse_study

OTHER = "ab" * 32


@pytest.fixture
def call(toy_store, capsys):
    store, _ = toy_store

    def run(*words):
        code = main(["store", *words, "--store", store.backend.name, "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]), captured.err

    return run


def test_ls_lists_every_artifact_and_a_word_narrows_it(call, toy_store):
    _, result = toy_store
    code, listed, _ = call("ls")
    assert code == 0
    assert sorted(a["key"] for a in listed["artifacts"]) == sorted(s.key for s in result.stages)
    assert {a["state"] for a in listed["artifacts"]} == {"published"}
    _, narrowed, _ = call("ls", "draws-test")
    assert [a["label"].partition("[")[0] for a in narrowed["artifacts"]] == ["draws-test"] * 2


def test_ls_of_a_name_that_is_not_there_says_which_are(toy_store, capsys):
    store, _ = toy_store
    assert main(["store", "ls", "nothing", "--store", store.backend.name]) == 2
    printed = capsys.readouterr().err
    assert "nothing: no such artifact or run" in printed
    assert "stages there: draws-test" in printed


def test_ls_names_the_study_and_arms_of_artifacts_and_runs(call, toy_store, capsys):
    store, result = toy_store
    folder = Path(store.backend.name)
    spec = parse_study(toys.ABLATION)
    with toys.opened(folder, spec) as record:
        first, *_, last = record.next_trials(6)
        for trial in (first, last):
            record.start(trial.trial)
        for stage in result.stages:
            record.stage(first.trial, stage.stage, stage.key, cached=True)
        shared = result.stages[0]
        record.stage(last.trial, shared.stage, shared.key, cached=True)
    _, listed, _ = call("ls")
    studies = {item["key"]: item["studies"] for item in listed["artifacts"]}
    both = [{"study": "parts", "arms": [first.arm, last.arm]}]
    assert studies.pop(shared.key) == both
    assert all(of == [{"study": "parts", "arms": [first.arm]}] for of in studies.values())
    assert listed["runs"][0]["studies"] == [{"study": "parts", "arms": [first.arm]}]
    assert main(["store", "ls", "--store", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"parts: {first.arm}, {last.arm}" in printed


def test_ls_of_a_store_without_studies_or_with_a_damaged_one_lists_artifacts(call, toy_store):
    store, _ = toy_store
    _, before, err = call("ls")
    assert {str(item["studies"]) for item in before["artifacts"]} == {"[]"}
    assert err == ""
    with toys.opened(Path(store.backend.name), parse_study(toys.ABLATION)) as record:
        record.next_trials(2)
        record.stopped("for now")
    events = Path(store.backend.name) / "studies" / "parts" / "events"
    sorted(events.iterdir())[1].unlink()
    code, after, err = call("ls")
    assert code == 0
    assert after == before
    assert "warning: " in err
    assert "parts" in err


def test_ls_lists_the_runs_that_predict_can_be_given(call, toy_store, capsys):
    store, result = toy_store
    (run,) = call("ls")[1]["runs"]
    assert (run["run"], run["method"]) == (result.run, "toy")
    assert run["created"]
    assert call("ls", "encode")[1]["runs"] == []
    assert main(["store", "ls", "--store", store.backend.name]) == 0
    assert result.run[:12] in capsys.readouterr().out


def test_show_prints_a_manifest_or_a_run(call, toy_store):
    _, result = toy_store
    assert call("show", "train")[1]["identity"]["stage"] == "train"
    assert call("show", result.run[:10])[1]["config"]["train"]["rate"] == 0.5
    code, answer, _ = call("show", "draws-test")
    assert code == 2
    assert "2 match" in answer["error"]
    assert call("show", "nothing")[0] == 2


def test_rm_removes_what_is_named_and_nothing_else(call, toy_store):
    store, result = toy_store
    key = result.artifacts["encode"].key
    assert call("rm", f"encode/{key[:8]}")[1]["removed"] == [f"encode/{key}"]
    assert store.find("encode", key) is None
    assert store.find("train", result.artifacts["train"].key)
    assert call("rm", "encode")[0] == 2
    assert call("rm", result.run)[1]["removed"] == [f"runs/{result.run}"]


def test_gc_unused_keeps_what_a_recorded_run_needs(call, toy_store):
    store, result = toy_store
    other = toy_run(store, "evaluate.num_draws=2", "encode.scale=9")
    assert call("gc", "--unused")[1]["removed"] == []
    call("rm", other.run)
    promised = call("gc", "--unused", "--dry-run")[1]["removed"]
    removed = call("gc", "--unused")[1]["removed"]
    assert promised == removed
    assert len(removed) == 5
    assert all(s.cached for s in toy_run(store, "evaluate.num_draws=2").stages)
    assert result.run != other.run


def test_gc_unused_keeps_what_was_held_or_published_while_it_waited(call, toy_store, monkeypatch):
    store, result = toy_store
    folder = Path(store.backend.name)
    call("rm", result.run)
    lease = store.leases.acquire(f"train/{OTHER}")
    with ExitStack() as live:

        def sleep(_seconds):
            live.enter_context(toys.opened(folder, parse_study(toys.ABLATION)))
            place = ("encode", result.artifacts["encode"].key)
            pin(LocalStorage(folder), "parts", "one", [place])
            attempt = store.open_attempt("late", OTHER)
            store.publish(attempt)
            lease.release()

        monkeypatch.setattr("namd.pipeline.collection.time.sleep", sleep)
        removed = call("gc", "--unused")[1]["removed"]
        assert f"train/{result.artifacts['train'].key}" in removed
        assert store.find("encode", result.artifacts["encode"].key)
        assert store.find("late", OTHER)
    monkeypatch.undo()
    assert len(call("gc", "--unused")[1]["removed"]) == 2


def test_verify_passes_a_sound_store_and_fails_a_damaged_one(call, toy_store):
    _, result = toy_store
    code, answer, _ = call("verify")
    assert (code, answer["checked"], answer["damaged"]) == (0, 6, [])
    assert call("verify", "encode")[:2] == (0, {"checked": 1, "damaged": []})
    code, answer, _ = call("verify", "encoder")
    assert (code, answer["exit"]) == (2, 2)
    assert "no such artifact" in answer["error"]
    (result.artifacts["encode"].payload / "z.npy").write_bytes(b"x")
    code, answer, found = call("verify")
    assert code == 1
    assert answer["damaged"][0]["problems"] == ["payload/z.npy has changed"]
    assert "z.npy" in found
    states = {a["stage"]: a["state"] for a in call("ls")[1]["artifacts"]}
    assert states["encode"] == "damaged"
    assert states["train"] == "published"


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_gc_leaves_an_artifact_whose_commit_is_unreadable_as_it_is(call, toy_store, content):
    _, result = toy_store
    folder = result.artifacts["encode"].folder.parent.parent
    (folder / "COMMIT").write_text(content)
    code, answer, _ = call("gc")
    assert (code, answer["removed"]) == (0, [])
    assert result.artifacts["encode"].folder.is_dir()


def test_what_a_damaged_artifact_took_is_not_asked(toy_store):
    store, result = toy_store
    configuration = configure("encode.scale=1.5")
    plan = make_plan(configuration.stages(), configuration.config, cohort_digest=cohort_digest)
    encode = next(node for node in plan.nodes if node.label == "encode")
    assert estimator(store)([encode])["encode"] is not None
    (result.artifacts["encode"].folder.parent.parent / "COMMIT").write_text("{")
    assert estimator(store)([encode])["encode"] is None


def test_a_log_hears_the_plan_each_stage_and_the_end(toy_store, capsys):
    store, _ = toy_store
    toy_run(
        store, "evaluate.num_draws=3", "encode.scale=5", reporter=PlainReporter(estimator(store))
    )
    printed = capsys.readouterr().err
    assert printed.splitlines()[0] == "8 artifacts: 1 in the store, 7 to build"
    assert "encode: started" in printed
    assert "draws-test (3): 3 of 3" in printed
    assert "scores-test[2]: done in 0 s" in printed
    assert "judged by earlier builds" in printed


def test_bars_end_with_the_same_artifacts(toy_store):
    from rich.console import Console
    from rich.progress import Progress

    store, _ = toy_store
    console = Console(record=True, width=80)
    with Progress(console=console) as bars:
        toy_run(
            store,
            "evaluate.num_draws=3",
            "encode.scale=5",
            reporter=RichReporter(estimator(store), bars),
        )
    assert "draws-test[2]: done" in console.export_text()


def test_a_forecast_counts_only_what_is_known():
    vae, *draws = StageName("vae"), StageName("draws", 0), StageName("draws", 1)
    known = {"vae": 60.0, "draws[0]": 5.0, "draws[1]": 5.0}
    assert forecast([vae, *draws], known).startswith("about 1 min 10 s")
    partial = forecast([vae, *draws], {"vae": 60.0, "draws[0]": None, "draws[1]": None})
    assert partial.startswith("at least 1 min 00 s")
    assert "nothing like draws was built" in partial
    assert forecast([vae], {"vae": None}).startswith("no estimate")
