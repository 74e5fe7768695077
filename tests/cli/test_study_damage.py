"""A damaged ledger is named in one line with the way out, hides no other study, and is repaired."""

import json
import os
import shutil
import sys

import pytest
import toy_studies as toys
from ledger_damage import EVENTS, FIELDS, HARMLESS, LEASES, SEGMENTS, event_file, seal

from analysis.study_report import make_report
from namd.cli import main as front
from namd.config.errors import InputError
from namd.ledger.lease import StudyBusy
from namd.ledger.pins import pinned, release_pins
from namd.ledger.reading import read_events
from namd.ledger.repair import repair
from namd.ledger.requests import stop_requested
from namd.ledger.survey import survey
from namd.ledger.view import read_view
from namd.pipeline import graph
from namd.pipeline.store import open_store
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.opening import open_storage
from namd.study.spec import parse_study

QUICK = LeaseTiming(ttl_s=0.4, heartbeat_s=0.05)
NAME = toys.ABLATION["name"]
ABLATION = {**toys.ABLATION, "base": {"preset": "tiny", "method": "namd"}, "seeds": 1}

COMMANDS = {
    "status": [],
    "watch": ["--interval", "0"],
    "best": [],
    "logs": ["full/0"],
    "report": [],
    "retry": ["--failed"],
    "stop": ["--timeout", "0"],
    "run": ["--resume", "--cohort", "x", "--wandb", "off"],
    "plan": ["--cohort", "x", "--no-calibration"],
    "publish": ["--wandb"],
}
LOOK_AT_LEASES = ("status", "watch", "retry", "stop", "run")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store with the ledgers of two finished studies."""
    folder = tmp_path_factory.mktemp("recorded") / "store"
    open_store(str(folder))
    for name in (NAME, "sound"):
        toys.recorded_study(folder, {**ABLATION, "name": name})
    return folder


@pytest.fixture
def folder(recorded, tmp_path, monkeypatch):
    """A copy of the store; no command gets as far as Ray, W&B or a cohort."""
    shutil.copytree(recorded, tmp_path / "store")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.delenv("NAMD_STORE", raising=False)
    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", lambda *_, **__: tmp_path / "cohort")
    monkeypatch.setattr(graph, "_cohort_digest", lambda _cohort, _digests: lambda part: str(part))
    monkeypatch.setattr("namd.tracking.publishing.publish", lambda *_: 0)
    monkeypatch.setattr("analysis.study_report._figures", lambda *_: {})

    def driver(*_, **__):
        raise InputError("the driver would begin")

    monkeypatch.setattr("namd.cli.study_run._driver", lambda: driver)
    monkeypatch.setitem(sys.modules, "ray", None)
    return tmp_path / "store"


def call(capsys, folder, command, *words):
    """Run a command about the study; return its code and what it wrote."""
    front_words = ["report"] if command == "report" else ["study", command]
    code = front.main([*front_words, *words, "--store", str(folder)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def every(capsys, folder):
    """Return what each command about the study answers."""
    return {c: call(capsys, folder, c, NAME, *words) for c, words in COMMANDS.items()}


def require_refusal(answer, file):
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("error: store ")
    assert f"studies/{NAME}/{file}" in err
    assert f"`namd study repair {NAME} --store " in err


SOUND = dict.fromkeys(COMMANDS, 0) | {"stop": 2, "run": 2}


@pytest.mark.parametrize("kind", [*EVENTS, *SEGMENTS], ids=lambda kind: kind.name)
def test_a_damaged_record_is_refused_by_every_command_and_hides_no_other_study(
    kind, folder, capsys
):
    kind.change(folder / "studies" / NAME)
    file = "segments/" if kind in SEGMENTS else "events/"
    for answer in every(capsys, folder).values():
        require_refusal(answer, file)
    code, out, err = call(capsys, folder, "list", "--json")
    states = {s["study"]: s["state"] for s in json.loads(out)["studies"]}
    assert (code, states) == (0, {NAME: "unreadable", "sound": "finished"})
    assert file in err
    assert call(capsys, folder, "status", "sound")[0] == 0


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.name)
def test_every_field_of_a_record_is_checked(kind, folder, capsys):
    assert survey(LocalStorage(folder), NAME) == []
    kind.change(folder / "studies" / NAME)
    require_refusal(call(capsys, folder, "status", NAME), "events/")
    (damage,) = survey(LocalStorage(folder), NAME)
    assert damage.file in call(capsys, folder, "repair", NAME, "--dry-run")[1]


@pytest.mark.parametrize("kind", LEASES, ids=lambda kind: kind.name)
def test_a_damaged_lease_is_refused_by_every_command_that_looks_at_it(
    kind, folder, capsys, monkeypatch
):
    monkeypatch.setattr("namd.ledger.lease.LeaseTiming", lambda: QUICK)
    kind.change(folder / "studies" / NAME)
    for command, answer in every(capsys, folder).items():
        if command in LOOK_AT_LEASES:
            require_refusal(answer, "leases/00000001")
        else:
            assert answer[0] == SOUND[command]
    assert json.loads(call(capsys, folder, "list", "--json")[1])["studies"][1]["study"] == "sound"


@pytest.mark.parametrize("kind", HARMLESS, ids=lambda kind: kind.name)
def test_what_damages_no_record_refuses_nothing(kind, folder, capsys, monkeypatch):
    monkeypatch.setattr("namd.api.study_report.write_study_report", read_alone)
    kind.change(folder / "studies" / NAME)
    answers = every(capsys, folder)
    assert {command: answer[0] for command, answer in answers.items()} == SOUND
    assert "the driver would begin" in answers["run"][2]
    assert "not running (" in answers["stop"][2]
    listed = json.loads(call(capsys, folder, "list", "--json")[1])["studies"]
    assert [study["study"] for study in listed] == [NAME, "sound"]


def read_alone(store, name, folder, *_):
    """What a report reads of a ledger; to write one takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(store)
    return folder, make_report(storage, read_view(storage, name))


def everything(folder):
    """The bytes of every file under a folder."""
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", [*EVENTS, *SEGMENTS, *LEASES], ids=lambda kind: kind.name)
def test_a_repaired_study_is_read_and_goes_on_to_its_end(kind, folder):
    place, storage = folder / "studies" / NAME, LocalStorage(folder)
    before = read_view(storage, NAME)
    kind.change(place)
    damaged = everything(place)
    found = survey(storage, NAME)
    assert found
    assert everything(place) == damaged
    aside, damages = repair(storage, NAME, timing=QUICK)
    assert [damage.file for damage in damages] == [damage.file for damage in found]
    assert survey(storage, NAME) == []
    for damage in damages:
        assert (place / aside / damage.file).exists() is damage.present
    spec = parse_study({**ABLATION})
    with toys.opened(folder, spec) as record:
        while not record.finished:
            for trial in record.next_trials(4):
                toys.finish_trial(record, trial)
        record.close()
    after = read_view(storage, NAME)
    assert after.counts() == before.counts()
    assert after.ended == "closed"
    for trial, view in before.trials.items():
        assert (after.trials[trial].values, after.trials[trial].body) == (view.values, view.body)


@pytest.mark.parametrize("kind", HARMLESS[:10], ids=lambda kind: kind.name)
def test_a_sound_ledger_is_not_repaired(kind, folder, capsys):
    place = folder / "studies" / NAME
    kind.change(place)
    before = everything(place)
    code, out, _ = call(capsys, folder, "repair", NAME, "--json")
    assert code == 0
    value = json.loads(out)
    assert (value["damaged"], value["aside"]) == ([], None)
    assert everything(place) == before


def test_repair_says_what_is_lost_and_a_dry_run_changes_nothing(folder, capsys):
    place = folder / "studies" / NAME
    file = event_file(place, "completed")
    record = json.loads(file.read_text())
    trial = record["trial"]
    del record["body"]["values"]
    file.write_text(json.dumps(record))
    damaged = everything(place)
    code, out, _ = call(capsys, folder, "repair", NAME, "--dry-run", "--json")
    value = json.loads(out)
    assert (code, value["dry_run"], value["aside"]) == (0, True, None)
    (one,) = value["damaged"]
    assert one["file"] == f"events/{file.name}"
    assert one["problem"] == "lacks body.values"
    assert "completed" in one["lost"][0]
    assert trial[:12] in one["lost"][0]
    assert everything(place) == damaged
    code, out, _ = call(capsys, folder, "repair", NAME, "--json")
    value = json.loads(out)
    assert (code, value["damaged"]) == (0, [one])
    assert json.loads((folder / value["aside"] / one["file"]).read_text()) == record
    code, out, _ = call(capsys, folder, "repair", NAME)
    assert (code, out) == (0, f"{NAME}: nothing is damaged\n")


def test_a_trial_of_which_it_is_lost_what_it_was_is_counted_and_no_arm(folder, capsys):
    event_file(folder / "studies" / NAME, "queued").write_bytes(b"")
    repair(LocalStorage(folder), NAME, timing=QUICK)
    code, out, _ = call(capsys, folder, "status", NAME, "--json")
    report = json.loads(out)
    assert (code, report["trials"]["completed"]) == (0, 3)
    assert len(report["arms"]) == 2
    assert call(capsys, folder, "best", NAME)[0] == 0


def test_what_can_be_read_of_a_damaged_segment_is_kept(folder):
    place, storage = folder / "studies" / NAME, LocalStorage(folder)
    sound = [event.identity for event in read_events(storage, NAME)]
    path = seal(place)
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))
    assert repair(storage, NAME, timing=QUICK)[1][0].lost == ()
    after = [event.identity for event in read_events(storage, NAME)]
    assert after[: len(sound)] == sound


def test_a_folder_of_the_ledger_that_became_a_file_is_set_aside(folder, capsys):
    place, storage = folder / "studies" / NAME, LocalStorage(folder)
    shutil.rmtree(place / "leases")
    (place / "leases").write_text("mine")
    assert call(capsys, folder, "status", NAME)[0] == 2
    aside, _ = repair(storage, NAME, timing=QUICK)
    assert (place / aside / "leases").read_text() == "mine"
    assert call(capsys, folder, "status", NAME)[0] == 0


def test_a_study_that_a_live_process_holds_is_not_repaired(folder):
    storage, spec = LocalStorage(folder), parse_study({**ABLATION})
    place = folder / "studies" / NAME
    from namd.study.record import open_study
    from namd.study.trials import Configurator

    with open_study(storage, spec, Configurator(spec), timing=QUICK):
        file = event_file(place, "completed")
        file.write_bytes(b"")
        before = set(place.rglob("*"))
        with pytest.raises(StudyBusy, match="is running it"):
            repair(storage, NAME, timing=QUICK)
        assert not (set(place.rglob("*")) - before)
    assert repair(storage, NAME, timing=QUICK)[1][0].file == f"events/{file.name}"


def test_a_lost_proposal_ends_a_search_in_one_line_and_leaves_it_readable(folder, capsys):
    search = {**toys.SEARCH, "name": "weights"}
    toys.recorded_study(folder, search)
    event_file(folder / "studies" / "weights", "proposed").write_bytes(b"")
    assert call(capsys, folder, "repair", "weights")[0] == 0
    for command in ("status", "list"):
        words = ["weights"] if command == "status" else []
        assert call(capsys, folder, command, *words)[0] == 0
    code, _, _ = call(capsys, folder, "report", "weights", "--out", str(folder.parent / "r"))
    assert code == 0
    page = (folder.parent / "r" / "report.html").read_text()
    assert "proposal 0 is lost" in page
    spec = parse_study(search)
    with pytest.raises(InputError, match=r"proposal 0 is lost.*--warm-from weights"):
        toys.opened(folder, spec)


def test_a_lost_last_proposal_is_made_again(folder):
    toys.recorded_study(folder, toys.SEARCH)
    place, storage = folder / "studies" / "weights", LocalStorage(folder)
    proposed = [
        path
        for path in sorted((place / "events").iterdir())
        if json.loads(path.read_text())["transition"].startswith("proposed/")
    ]
    before = read_view(storage, "weights")
    proposed[-1].write_bytes(b"{")
    repair(storage, "weights", timing=QUICK)
    with toys.opened(folder, parse_study(toys.SEARCH)) as record:
        while not record.finished:
            for trial in record.next_trials(4):
                toys.finish_trial(record, trial)
    after = read_view(storage, "weights")
    last = max(before.proposals)
    assert after.proposals[last].point == before.proposals[last].point


def test_what_a_live_study_of_an_earlier_version_holds_counts(folder):
    storage, old = LocalStorage(folder), folder / "studies" / NAME / "holds"
    old.mkdir()
    (old / "trial").write_text('[["vae", "ab"]]')
    assert pinned(storage) == set()  # nothing of it runs
    with toys.opened(folder, parse_study({**ABLATION})):
        assert pinned(storage) == {("vae", "ab")}
        (old / "trial").write_text("{")
        with pytest.raises(InputError, match=f"{NAME}/holds/trial .*namd study repair"):
            pinned(storage)
    assert "holds/trial" in [damage.file for damage in survey(storage, NAME)]
    release_pins(storage, NAME)
    assert not list(old.iterdir())


def test_a_damaged_pin_stops_a_collection_and_a_damaged_request_stops_a_study(folder):
    storage, spec = LocalStorage(folder), parse_study({**ABLATION})
    place = folder / "studies" / NAME
    (place / "pins").mkdir()
    (place / "requests").mkdir()
    (place / "requests" / "stop-2").write_bytes(b"{")
    with toys.opened(folder, spec):
        assert pinned(storage) == set()
        (place / "pins" / "trial").write_text('[["vae", "ab"]]')
        assert pinned(storage) == {("vae", "ab")}
        (place / "pins" / "trial").write_text('[["vae"]]')
        with pytest.raises(InputError, match=f"{NAME}/pins/trial .*namd study repair"):
            pinned(storage)
        assert "cannot be read" in stop_requested(storage, NAME, 2)
        assert stop_requested(storage, NAME, 3) is None
