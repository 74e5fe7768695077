"""What status, watch and list say is what the ledger holds, whoever is alive."""

import json
import subprocess
import sys
import threading
import time

import pytest
import toy_studies as toys

from namd.cli import main as front
from namd.ledger import lease
from namd.ledger.lease import look_at_holder
from namd.ledger.schema import Event, Identity, Place
from namd.ledger.writing import encode_segment
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.process import Holder
from namd.storage.stage_names import StageName
from namd.study.spec import parse_study


def asked(capsys, *words):
    """Run a command with --json; return its object."""
    code = front.main(["study", *map(str, words), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out.splitlines()[-1])


def test_status_of_a_finished_ablation(studies, capsys):
    toys.recorded_study(studies)
    code, answer = asked(capsys, "status", "parts", "--store", studies)
    assert code == 0
    assert answer["study"] == "parts"
    assert answer["state"] == "finished"
    assert answer["attempt"] == 1
    assert answer["trials"] == {
        "pending": 0,
        "running": 0,
        "completed": 6,
        "pruned": 0,
        "failed": 0,
        "diverged": 0,
    }
    assert answer["ledger"] == f"{studies}/studies/parts"
    assert [row["arm"] for row in answer["arms"]] == ["full", "no_align", "no_ehr"]
    full = answer["arms"][0]
    assert full["seeds"] == 2
    assert full["interval"] == "seeds"
    assert full["auroc"]["mean"] == pytest.approx(0.755)
    # Student's t with one degree of freedom: 12.706 standard errors of 0.005.
    assert full["auroc"]["high"] == pytest.approx(0.755 + 12.7062 * 0.005, rel=1e-4)
    assert full["auprc"]["mean"] == pytest.approx(0.655)


def test_status_for_people_names_question_counts_and_arms(studies, capsys):
    toys.recorded_study(studies)
    assert front.main(["study", "status", "parts", "--store", str(studies)]) == 0
    printed = capsys.readouterr().out
    for words in ("parts: finished", "Which part matters?", "6: 6 completed", "no_align", "2 of 2"):
        assert words in printed


def test_a_search_has_its_best_confirmed_on_fresh_seeds(studies, capsys):
    toys.recorded_study(studies, toys.SEARCH)
    _, answer = asked(capsys, "status", "weights", "--store", studies)
    assert "arms" not in answer
    assert answer["proposals"] == {"made": 4, "wanted": 4}
    best = answer["best"]
    assert best["overrides"]["vae.alignment.weight"] > 0
    assert best["auroc"] == {"mean": pytest.approx(0.75), "low": None, "high": None}
    assert best["confirmed"]["seeds"] == 2
    assert best["confirmed"]["auroc"]["mean"] == pytest.approx(0.765)


def test_several_objectives_have_several_best(studies, capsys):
    objectives = [{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}]
    search = {**toys.SEARCH["search"], "objective": objectives, "confirm_seeds": 1}

    def values(trial):
        weight = trial.configuration.config.vae.alignment.weight
        return {"auroc": weight, "lpips": weight}

    toys.recorded_study(studies, {**toys.SEARCH, "search": search}, values)
    _, answer = asked(capsys, "status", "weights", "--store", studies)
    assert len(answer["best"]) > 1
    weights = [row["auroc"]["mean"] for row in answer["best"]]
    assert len(set(weights)) == len(weights)


def test_a_live_driver_is_named(studies, capsys):
    spec = parse_study(toys.ABLATION)
    with toys.opened(studies, spec) as record:
        trial = record.next_trials(1)[0]
        record.start(trial.trial)
        record.stage(trial.trial, StageName("vae"), "k" * 64, cached=True)
        code, answer = asked(capsys, "status", "parts", "--store", studies)
    assert code == 0
    assert answer["state"] == "running"
    assert answer["holder"]["pid"] == Holder.here().pid
    assert answer["resume"] is None
    assert answer["running"] == [{"trial": trial.trial, "of": "full", "seed": 0, "stage": "vae"}]


def test_a_dead_driver_is_reported_with_the_way_on(studies, capsys):
    toys.as_if_killed(toys.opened(studies, parse_study(toys.ABLATION)))
    code, answer = asked(capsys, "status", "parts", "--store", studies)
    assert code == 0
    assert answer["state"] == "interrupted"
    assert answer["about"].startswith("not running: its driver, process")
    assert answer["resume"] == f"namd study run parts --resume --store {studies}"
    assert answer["resume"] in answer["about"]


def test_a_stopped_study_says_why(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        record.stopped("power is going")
    _, answer = asked(capsys, "status", "parts", "--store", studies)
    assert answer["state"] == "stopped"
    assert "power is going" in answer["about"]
    assert "--resume" in answer["about"]


def test_failures_are_named_and_a_retry_clears_them(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        first, second = record.next_trials(2)
        record.start(first.trial)
        record.fail(first.trial, "vae: the disk is full")
        record.start(second.trial)
        record.diverge(second.trial, "auroc is nan")
        _, answer = asked(capsys, "status", "parts", "--store", studies)
        assert [p["state"] for p in answer["problems"]] == ["failed", "diverged"]
        assert answer["problems"][0]["reason"] == "vae: the disk is full"
        record.retry_failed()
        _, answer = asked(capsys, "status", "parts", "--store", studies)
        assert [p["state"] for p in answer["problems"]] == ["diverged"]


def test_a_holder_elsewhere_lives_while_its_heart_beats(tmp_path):
    storage = LocalStorage(tmp_path)
    timing = LeaseTiming(ttl_s=4.0, heartbeat_s=0.2)
    far = Holder("elsewhere", "other-boot", "other", 1, 1)
    held = lease.acquire(storage, "s", far, timing)
    assert look_at_holder(storage, "s", timing).alive
    held.stop()
    seen = look_at_holder(storage, "s", timing)
    assert not seen.alive
    assert seen.holder == far
    held.release()
    assert look_at_holder(storage, "s", timing) is None


def test_unknown_studies_are_refused_with_the_nearest(studies, capsys):
    toys.recorded_study(studies)
    assert front.main(["study", "status", "pars", "--store", str(studies)]) == 2
    assert "did you mean parts?" in capsys.readouterr().err
    assert front.main(["study", "status", "parts", "--store", str(studies)]) == 0


def test_a_study_file_stands_for_its_name(studies, capsys, tmp_path):
    toys.recorded_study(studies)
    path = toys.write_file(tmp_path, toys.ABLATION)
    code, answer = asked(capsys, "status", path, "--store", studies)
    assert (code, answer["study"]) == (0, "parts")
    assert front.main(["study", "status", str(tmp_path / "absent.yaml")]) == 2


@pytest.mark.parametrize(
    "words", [["list"], ["status", "x"], ["logs", "x", "full/0"], ["best", "x"]]
)
def test_a_folder_that_is_no_store_is_refused(words, studies, capsys, tmp_path):
    toys.recorded_study(studies, {**toys.ABLATION, "name": "x"})
    other = tmp_path / "other"
    (other / "studies" / "x").mkdir(parents=True)
    assert front.main(["study", *words, "--store", str(other)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: store {other}: no store there (store.json is missing); name")
    assert front.main(["study", *words, "--store", str(studies)]) == 0


def test_an_empty_store_is_a_store_without_studies(studies, capsys):
    code, answer = asked(capsys, "list", "--store", studies)
    assert (code, answer["studies"]) == (0, [])
    assert front.main(["study", "status", "x", "--store", str(studies)]) == 2
    assert "it holds no study yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "parts"], "no store"),
        (["status", "parts", "--store", "absent"], "no such folder"),
        (["status", "a/b", "--store", "../store"], "was never run"),
        (["list", "--store", "absent"], "no such folder"),
        (["watch", "parts", "--store", "absent"], "no such folder"),
        (["watch", "parts", "--interval", "-1"], "seconds are 0 or more"),
        (["status", "parts", "--store", "gs://x"], "only local folders, file:// and s3://"),
    ],
)
def test_a_mistake_is_one_line(words, message, studies, capsys):
    assert front.main(["study", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_list_shows_every_study_of_a_store(studies, capsys):
    _, answer = asked(capsys, "list", "--store", studies)
    assert answer["studies"] == []
    toys.recorded_study(studies)
    toys.recorded_study(studies, toys.SEARCH)
    _, answer = asked(capsys, "list", "--store", studies)
    assert [(s["study"], s["kind"], s["state"]) for s in answer["studies"]] == [
        ("parts", "ablation", "finished"),
        ("weights", "search", "finished"),
    ]
    assert front.main(["study", "list", "--store", str(studies)]) == 0
    assert "6: 6 completed" in capsys.readouterr().out


def test_watch_follows_to_the_end(studies, capsys):
    spec = parse_study({**toys.ABLATION, "seeds": 1})
    record = toys.opened(studies, spec)

    def drive():
        with record:
            while not record.finished:
                for trial in record.next_trials(1):
                    toys.finish_trial(record, trial)
                    time.sleep(0.2)
            record.close()

    driver = threading.Thread(target=drive)
    driver.start()
    code = front.main(
        ["study", "watch", "parts", "--store", str(studies), "--interval", "0.05", "--json"]
    )
    driver.join()
    captured = capsys.readouterr()
    assert code == 0
    assert json.loads(captured.out)["state"] == "finished"
    assert len(captured.err.splitlines()) > 1
    assert captured.err.splitlines()[-1].startswith("3: 3 completed")


def test_watch_of_a_dead_driver_ends_with_1(studies, capsys):
    toys.as_if_killed(toys.opened(studies, parse_study(toys.ABLATION)))
    assert front.main(["study", "watch", "parts", "--store", str(studies)]) == 1
    assert "not running" in capsys.readouterr().out


def test_status_imports_neither_torch_nor_ray_nor_optuna(studies):
    toys.recorded_study(studies)
    code = (
        "import sys; from namd.cli.main import main;"
        f"main(['study', 'status', 'parts', '--store', {str(studies)!r}]);"
        "print([m for m in ('torch', 'ray', 'optuna', 'pandas', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def synthetic(folder, num_trials: int) -> None:
    """Write sealed records of a search, 2000 a segment, as a driver leaves them."""
    search = {"objective": {"metric": "auroc", "mode": "max"}, "num_trials": num_trials}
    specification = {"name": "big", "search": search}
    bodies = [(None, 1, "opened", {"specification": specification, "configuration": {}})]
    for number in range(num_trials):
        trial = f"{number:020x}"
        overrides = {"vae.alignment.weight": 0.1 * number, "finetune.soft_prompt.num_sets": 4}
        proposal = {"point": {}, "overrides": overrides, "sampler_state": {}, "trials": [trial]}
        bodies.append((None, 0, f"proposed/{number}", proposal))
        queued = {"arm": "", "proposal": number, "seed": 0, "overrides": overrides}
        bodies += [(trial, 0, "queued", queued), (trial, 1, "started", {})]
        for stage in ("vae", "latents", "probe", "pretrain", "finetune", "draws", "scores"):
            found = {"stage": stage, "key": f"{stage}{trial}", "cached": False, "seconds": 1.0}
            bodies.append((trial, 1, f"stage/{stage}", found))
        bodies.append((trial, 1, "completed", {"values": {"auroc": (number % 97) / 97}}))
    bodies.append((None, 1, "closed", {}))
    storage = LocalStorage(folder)
    events = [
        Event(Place(1, seq), Identity(*found[:3]), 1e9 + seq, "w", found[3])
        for seq, found in enumerate(bodies, start=1)
    ]
    for start in range(0, len(events), 2000):
        chunk = events[start : start + 2000]
        name = f"{1:08d}-{chunk[0].place.seq:08d}-{chunk[-1].place.seq:08d}.jsonl.gz"
        storage.create(f"studies/big/segments/{name}", encode_segment(chunk))


@pytest.mark.parametrize("num_trials", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_trials_are_reported_within_three_seconds(num_trials, studies):
    synthetic(studies, num_trials)
    code = (
        "import time; from pathlib import Path; from namd.cli.main import main;"
        f"main(['study', 'status', 'big', '--store', {str(studies)!r}, '--json']);"
        # ru_maxrss would count the process that started this one.
        "print(time.process_time(), *Path('/proc/self/status').read_text().split('VmHWM:')[1]"
        ".split()[:1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, measured = done.stdout.splitlines()[-2:]
    seconds, kib = map(float, measured.split())
    assert json.loads(found)["trials"]["completed"] == num_trials
    assert json.loads(found)["best"]["proposal"] == 96
    assert seconds < 3.0
    assert kib < 150 * 1024
