"""A plan says what will run, what is there and why not, before anything does."""

import json

import pytest
import toy_studies as toys

from namd.cli import main as front
from namd.cli import study_plan
from namd.pipeline import graph
from namd.study import calibrated_plan
from namd.study.plan import Cluster


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """A folder that passes for a cohort of fixed contents."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", lambda _word, _store, **_more: folder)
    monkeypatch.setattr(graph, "_cohort_digest", lambda _cohort, _digests: lambda part: str(part))
    return folder


def planned(capsys, *words):
    code = front.main(["study", "plan", *map(str, words), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


def words_for(tmp_path, studies, mapping=toys.ABLATION, **changes):
    path = toys.write_file(tmp_path, mapping, **changes)
    return [path, "--store", studies, "--cohort", "x"]


def test_a_plan_has_the_fields_that_others_rely_on(studies, cohort, capsys, tmp_path):
    code, answer, _ = planned(capsys, *words_for(tmp_path, studies), "--no-calibration")
    assert code == 0
    assert answer["trials"] == 6
    assert answer["refused"] is None
    assert answer["stages_in_store"] == 0
    assert answer["stages_distinct"] < answer["stages_total"]
    assert answer["peak_concurrency"] >= 1
    assert answer["device_hours"] == 0
    assert "vae" in answer["unknown_stages"]
    assert {row["arm"] for row in answer["arms"]} == {"full", "no_align", "no_ehr"}


def test_for_people_it_is_a_table(studies, cohort, capsys, tmp_path):
    words = [str(word) for word in words_for(tmp_path, studies)]
    assert front.main(["study", "plan", *words, "--no-calibration"]) == 0
    printed = capsys.readouterr().out
    for part in ("3 arms x 2 training seeds = 6 trials", "no_ehr", "cost unknown", "finetune"):
        assert part in printed


def test_costs_are_measured_without_a_record(studies, cohort, capsys, tmp_path, monkeypatch):
    asked = []

    def calibrate(_configurator, folder, unknown, _say):
        asked.append((folder, unknown))
        return dict.fromkeys(unknown, 36.0)

    monkeypatch.setattr(calibrated_plan, "measured_costs", calibrate)
    words = words_for(tmp_path, studies)
    code, answer, _ = planned(capsys, *words)
    assert code == 0
    assert len(asked) == 1
    assert answer["unknown_stages"] == []
    assert answer["device_hours"] == pytest.approx(answer["stages_distinct"] / 100)
    code, answer, err = planned(capsys, *words_for(tmp_path, studies, budget={"device_hours": 0.1}))
    assert code == 2
    assert "exceed the budget of 0.1" in answer["refused"]
    assert "refused: " in err


def test_what_no_cluster_can_place_is_refused_with_numbers(
    studies, cohort, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(study_plan, "cluster_at", lambda _address: Cluster(4.0, 2.0))
    worker_group = {"stages": {"finetune": {"workers": 4, "gpus": 1}}}
    words = words_for(tmp_path, studies, resources=worker_group)
    code, answer, _ = planned(capsys, *words, "--no-calibration")
    assert code == 2
    assert answer["refused"] == ("stage finetune needs 4 workers x 1 GPUs = 4, the cluster has 2")
    worker_group["stages"]["finetune"]["workers"] = 2
    words = words_for(tmp_path, studies, resources=worker_group)
    assert planned(capsys, *words, "--no-calibration")[0] == 0


def test_a_batch_that_workers_cannot_share_is_refused_before_anything_starts(
    studies, cohort, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(study_plan, "cluster_at", lambda _address: Cluster(64.0))
    worker_group = {"stages": {"vae": {"workers": 7}}}
    words = words_for(tmp_path, studies, resources=worker_group)
    code, answer, err = planned(capsys, *words, "--no-calibration")
    assert code == 2
    assert "cannot be shared equally by 7 workers" in answer["refused"]
    assert "refused: " in err
    worker_group["stages"]["vae"]["minimum_workers"] = 1
    words = words_for(tmp_path, studies, resources=worker_group)
    assert planned(capsys, *words, "--no-calibration")[0] == 0


def test_arms_of_one_configuration_are_merged(studies, cohort, capsys, tmp_path):
    toggles = {"a": {"vae.alignment.weight": 0}, "b": {"vae.alignment.weight": 0.0}}
    design = {"design": "leave-one-out", "toggles": toggles}
    words = words_for(tmp_path, studies, ablation=design)
    _, answer, _ = planned(capsys, *words, "--no-calibration")
    assert answer["arms"] == [
        {"arm": "full", "aliases": []},
        {"arm": "no_a", "aliases": ["no_b"]},
    ]
    assert front.main(["study", "plan", *map(str, words), "--no-calibration"]) == 0
    assert "same as no_b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "resolution", "line"),
    [
        (3, 3, "2^(3-1) = 4 of 8 combinations, resolution 3; aliased: t0 = t1 × t2, "),
        (4, 4, "2^(4-1) = 8 of 16 combinations, resolution 4: no toggle is confounded"),
        (2, 3, "all 2^2 = 4 combinations"),
    ],
)
def test_a_fraction_says_what_it_leaves_out(
    studies, cohort, capsys, tmp_path, count, resolution, line
):
    paths = ("vae.alignment.weight", "vae.prediction.weight", "vae.kl.weight", "pretrain.num_steps")
    toggles = {f"t{n}": {path: 0} for n, path in enumerate(paths[:count])}
    design = {"design": "fractional", "toggles": toggles, "resolution": resolution}
    words = words_for(tmp_path, studies, ablation=design)
    _, answer, _ = planned(capsys, *words, "--no-calibration")
    assert answer["fraction"]["resolution"] == (resolution if count > 2 else 3)
    assert answer["fraction"]["runs"] == len(answer["arms"])
    assert answer["fraction"]["aliases"]["t0"] == ([["t1", "t2"]] if count == 3 else [])
    assert front.main(["study", "plan", *map(str, words), "--no-calibration"]) == 0
    assert line in capsys.readouterr().out
    _, answer, _ = planned(capsys, *words_for(tmp_path, studies), "--no-calibration")
    assert answer["fraction"] is None


def test_a_search_shows_its_space_and_says_what_is_guessed(studies, cohort, capsys, tmp_path):
    search = {**toys.SEARCH["search"], "sampler": "tpe"}
    words = words_for(tmp_path, studies, toys.SEARCH, search=search)
    code, answer, _ = planned(capsys, *words, "--no-calibration")
    assert (code, answer["trials"], answer["estimated"]) == (0, 6, True)
    assert front.main(["study", "plan", *map(str, words), "--no-calibration"]) == 0
    text = capsys.readouterr().out
    for part in ("4 proposals by tpe", "log_uniform [0.01, 10]", "auroc (max, validation)"):
        assert part in text
    assert "random points of the space stand in" in text


def test_devices_are_counted_as_cuda_shows_them(tmp_path, monkeypatch):
    monkeypatch.setattr("namd.study.this_machine.DRIVER", tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for shown, count in (("0", 1), ("0,1,2", 2), ("", 0), ("-1", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert study_plan.cluster_at(None).gpus == count
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert study_plan.cluster_at("local").gpus == 2


def test_the_schema_is_printed(capsys):
    assert front.main(["study", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "namd study"
    assert front.main(["study", "schema", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == schema
