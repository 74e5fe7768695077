"""One trial in full, and a configuration that runs again as it was."""

import json
import re

import pytest
import toy_studies as toys

from namd.cli import main as front
from namd.cli.study_trials import run_yaml
from namd.config.parsing import to_mapping
from namd.ledger.view import read_view
from namd.pipeline.run_configuration import resolve
from namd.storage.local import LocalStorage
from namd.study.spec import parse_study
from namd.study.trials import Configurator


def asked(capsys, *words):
    code = front.main(["study", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_logs_show_overrides_stages_metrics_and_events(studies, capsys):
    toys.recorded_study(studies)
    view = read_view(LocalStorage(studies), "parts")
    trial = next(t for t in view.trials.values() if t.body["arm"] == "no_align")
    lines = [{"index": i, "loss": 1.0 / i} for i in range(1, 9)]
    toys.put_metrics(studies, "vae", trial.stages[0].key, lines)
    code, answer = asked(
        capsys, "logs", "parts", trial.trial[:8], "--store", studies, "--lines", "2"
    )
    assert code == 0
    assert answer["overrides"] == {"vae.alignment.weight": 0}
    assert answer["arm"] == "no_align"
    vae, latents = answer["stages"]
    assert (studies / vae["metrics"]).is_file()
    assert latents["metrics"] is None
    assert answer["last_metrics"] == [{"stage": "vae", **line} for line in lines[-2:]]
    assert [e["transition"] for e in answer["events"]] == [
        "queued",
        "started",
        "stage/vae",
        "stage/latents",
        "completed",
    ]
    assert front.main(["study", "logs", "parts", trial.trial, "--store", str(studies)]) == 0
    text = capsys.readouterr().out
    for words in ("vae.alignment.weight = 0", "built in 2 s", vae["metrics"], "loss 0.125"):
        assert words in text


def test_logs_show_why_a_trial_failed(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        trial = record.next_trials(1)[0]
        record.start(trial.trial)
        record.fail(trial.trial, "vae: the disk is full")
    code, answer = asked(capsys, "logs", "parts", "full/0", "--store", studies)
    assert (code, answer["trial"]) == (0, trial.trial)
    assert (answer["state"], answer["reason"]) == ("failed", "vae: the disk is full")
    assert front.main(["study", "logs", "parts", "full/0", "--store", str(studies)]) == 0
    assert "reason: vae: the disk is full" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["no_such", "full/7", "fool/0", "ab", "/"])
def test_an_unknown_trial_is_refused(word, studies, capsys):
    toys.recorded_study(studies)
    assert front.main(["study", "logs", "parts", word, "--store", str(studies)]) == 2
    assert f"trial {word!r}" in capsys.readouterr().err


@pytest.mark.parametrize("mapping", [toys.ABLATION, toys.SEARCH], ids=["ablation", "search"])
def test_logs_take_every_name_that_status_prints(mapping, studies, capsys):
    toys.recorded_study(studies, mapping)
    name = mapping["name"]
    assert front.main(["study", "status", name, "--store", str(studies)]) == 0
    shown = re.search(rf"`namd (study logs {name} \S+)`", capsys.readouterr().out)
    assert front.main([*shown[1].split(), "--store", str(studies)]) == 0
    capsys.readouterr()
    _, answer = asked(capsys, "status", name, "--store", studies)
    assert len(answer["trial_names"]) == sum(answer["trials"].values())
    for trial in answer["trial_names"][:3]:
        for word in (f"{trial['of']}/{trial['seed']}", trial["trial"], trial["trial"][:12]):
            _, found = asked(capsys, "logs", name, word, "--store", studies)
            assert found["trial"] == trial["trial"]


def test_an_arm_alone_names_its_only_trial_and_not_one_of_several(studies, capsys):
    toys.recorded_study(studies, {**toys.ABLATION, "seeds": 1})
    code, answer = asked(capsys, "logs", "parts", "no_ehr", "--store", studies)
    assert (code, answer["arm"]) == (0, "no_ehr")
    toys.recorded_study(studies, {**toys.ABLATION, "name": "more"})
    assert front.main(["study", "logs", "more", "no_ehr", "--store", str(studies)]) == 2
    assert "name one of no_ehr/0, no_ehr/1" in capsys.readouterr().err


def test_a_failed_trial_is_named_as_logs_take_it(studies, capsys):
    with toys.opened(studies, parse_study(toys.ABLATION)) as record:
        trial = record.next_trials(1)[0]
        record.start(trial.trial)
        record.fail(trial.trial, "vae: the disk is full")
        record.stopped("for now")
    assert front.main(["study", "status", "parts", "--store", str(studies)]) == 0
    printed = capsys.readouterr().out
    assert f"full/0 ({trial.trial[:8]}): vae: the disk is full" in printed
    assert "`namd study logs parts full/0`" in printed


def test_an_ambiguous_trial_is_refused(studies, capsys, monkeypatch):
    toys.recorded_study(studies)
    monkeypatch.setattr("namd.cli.study_trials.MIN_OF_ID", 0)
    assert front.main(["study", "logs", "parts", "", "--store", str(studies)]) == 2
    assert "6 match" in capsys.readouterr().err


@pytest.mark.parametrize("mapping", [toys.ABLATION, toys.SEARCH], ids=["ablation", "search"])
def test_the_best_runs_again_as_it_was(mapping, studies, capsys, tmp_path):
    spec = toys.recorded_study(studies, mapping)
    name = mapping["name"]
    assert front.main(["study", "best", name, "--store", str(studies)]) == 0
    path = tmp_path / "run.yaml"
    path.write_text(capsys.readouterr().out)
    again = resolve(None, path)
    _, answer = asked(capsys, "best", name, "--store", studies)
    original = Configurator(spec).configure(answer["overrides"], answer["seed"])
    assert again.config == original.config
    assert again.method is original.method
    assert answer["configuration"] == {"method": "namd", **to_mapping(original.config)}


def test_the_best_arm_is_the_one_with_the_highest_primary(studies, capsys):
    toys.recorded_study(studies)
    _, answer = asked(capsys, "best", "parts", "--store", studies)
    assert answer["about"].startswith("arm full")
    _, answer = asked(capsys, "best", "parts", "--store", studies, "--arm", "no_ehr", "--seed", 1)
    assert (answer["overrides"], answer["seed"]) == ({"finetune.report.include": []}, 1)


def test_lower_is_better_for_a_distance(studies, capsys):
    changed = {**toys.ABLATION, "evaluate": {"primary": "lpips"}}

    def values(trial):
        return {"lpips": trial.configuration.config.vae.alignment.weight}

    toys.recorded_study(studies, changed, values)
    _, answer = asked(capsys, "best", "parts", "--store", studies)
    assert answer["about"].startswith("arm no_align")


@pytest.mark.parametrize(
    ("mapping", "words", "message"),
    [
        (toys.ABLATION, ["--arm", "no_alien"], "did you mean no_align?"),
        (toys.ABLATION, ["--proposal", "0"], "is an ablation"),
        (toys.ABLATION, ["--seed", "9"], "training seeds 0, 1"),
        (toys.SEARCH, ["--arm", "full"], "is a search"),
        (toys.SEARCH, ["--proposal", "9"], "has 4, from 0"),
    ],
)
def test_what_is_not_there_is_refused(mapping, words, message, studies, capsys):
    toys.recorded_study(studies, mapping)
    base = ["study", "best", mapping["name"], "--store", str(studies)]
    assert front.main([*base, *words]) == 2
    assert message in capsys.readouterr().err
    assert front.main(base) == 0


def test_nothing_is_best_before_a_trial_completes(studies, capsys):
    for mapping in (toys.ABLATION, toys.SEARCH):
        with toys.opened(studies, parse_study(mapping)) as record:
            record.next_trials(1)
        assert front.main(["study", "best", mapping["name"], "--store", str(studies)]) == 2
        assert "yet" in capsys.readouterr().err


def test_of_a_front_one_must_be_chosen(studies, capsys):
    objectives = [{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}]
    search = {**toys.SEARCH["search"], "objective": objectives, "confirm_seeds": 1}

    def values(trial):
        weight = trial.configuration.config.vae.alignment.weight
        return {"auroc": weight, "lpips": weight}

    toys.recorded_study(studies, {**toys.SEARCH, "search": search}, values)
    base = ["study", "best", "weights", "--store", str(studies)]
    assert front.main(base) == 2
    assert "--proposal" in capsys.readouterr().err
    assert front.main([*base, "--proposal", "1"]) == 0


def test_text_that_looks_like_a_number_survives(monkeypatch):
    """YAML 1.1 writes 1e-6 unquoted, YAML 1.2 reads it as a number."""
    configuration = Configurator(parse_study(toys.ABLATION)).configure({}, 0)
    mapping = {**to_mapping(configuration.config), "vae": {"architecture": "1e-6"}}
    monkeypatch.setattr("namd.config.parsing.to_mapping", lambda _config: mapping)
    text, found = run_yaml(toys.ABLATION, {}, 0)
    assert json.loads(text) == found
