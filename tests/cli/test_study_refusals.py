"""What is wrong in a study file is named in one line beginning with the file, before Ray starts."""

import copy
import sys

import pytest
import toy_studies as toys

from namd.cli import main as front
from namd.pipeline import graph
from tests.data.conftest import make_cohort


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """A folder that passes for a cohort of fixed contents, under any name but `absent`."""
    from namd.cli.named_cohorts import find_cohort

    folder = tmp_path / "cohort"
    folder.mkdir()

    def found(word, store, **more):
        return find_cohort(word, store, **more) if word == "absent" else folder

    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", found)
    monkeypatch.setattr(graph, "_cohort_digest", lambda _cohort, _digests: lambda part: str(part))
    # Importing it would raise: no refusal may need Ray.
    monkeypatch.setitem(sys.modules, "namd.distributed.driver", None)
    return folder


def changed(mapping, path, value):
    result = copy.deepcopy(mapping)
    *parents, leaf = path.split("/")
    place = result
    for name in parents:
        place = place.setdefault(name, {})
    place[leaf] = value
    return result


def refusal(capsys, command, file, *words):
    """Run a study command that must refuse; return its line without `error: `."""
    assert front.main(["study", command, str(file), *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


REFUSED = [
    (toys.ABLATION, "seeds", "x", "seeds='x': expected a whole number or a list of whole numbers"),
    (toys.ABLATION, "seeds", 0, "seeds=0: expected a count of 1 or more"),
    (toys.ABLATION, "sedes", 2, "sedes=2: unknown key; did you mean seeds?"),
    (toys.ABLATION, "name", "a b", "name: study name 'a b': use letters"),
    (toys.ABLATION, "ablation/toggles", {}, "ablation: toggles is empty"),
    (toys.ABLATION, "search", toys.SEARCH["search"], "ablation, search: a study has either"),
    (
        toys.ABLATION,
        "base/preset",
        "tinny",
        "base: preset 'tinny' does not exist for method namd; did you mean",
    ),
    (toys.ABLATION, "base/method", "namdd", "base: method='namdd' does not exist; did you mean"),
    (toys.ABLATION, "base/set", {"method": "x"}, "base.set.method='x': method is set by"),
    (toys.ABLATION, "base/store", "there", "base.store='there': a relative folder"),
    (toys.ABLATION, "base/cohort", "absent", "base.cohort='absent': "),
    (
        toys.ABLATION,
        "ablation/toggles/align",
        {"vae.alignment.wieght": 0},
        "ablation.toggles.align: vae.alignment.wieght=0: unknown key; did you mean",
    ),
    (toys.ABLATION, "evaluate/primary", "aurocc", "evaluate.primary='aurocc': no such metric; did"),
    (toys.ABLATION, "resources", {"stages": {"vea": {}}}, "resources.stages.vea: no such stage"),
    (toys.SEARCH, "search/num_trials", 0, "search: num_trials is 1 or more, not 0"),
    (
        toys.SEARCH,
        "search/space/vae.alignment.sigma_f",
        {"log_uniform": [8, 0.25]},
        "search.space.vae.alignment.sigma_f",
    ),
    (
        {**toys.SEARCH, "base": {**toys.SEARCH["base"], "set": {"evaluate.lpips": "off"}}},
        "search/objective",
        {"metric": "lpips", "mode": "min"},
        "search.objective.metric='lpips': evaluate.lpips is off",
    ),
    (toys.SEARCH, "search/objective", {"metric": "auorc"}, "search.objective.metric='auorc'"),
]


@pytest.mark.parametrize(("mapping", "path", "value", "message"), REFUSED)
def test_a_fault_of_the_file_begins_with_the_file(
    mapping, path, value, message, studies, cohort, capsys, tmp_path
):
    file = toys.write_file(tmp_path, {"base": {}, **mapping})
    changed_file = tmp_path / "changed.yaml"
    changed_file.write_text(toys.yaml.safe_dump(changed(mapping, path, value)))
    words = [] if path == "base/store" else ["--store", studies]
    words += [] if path == "base/cohort" else ["--cohort", "x"]
    for command in ("plan", "run"):
        shown = refusal(capsys, command, changed_file, *words)
        assert shown.startswith(f"{changed_file}: {message}")
    accepted = [str(file), "--store", str(studies), "--cohort", "x", "--no-calibration"]
    assert front.main(["study", "plan", *accepted]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "line 2: the key 'name' is given twice; keep one"),
        ("name: [a\n", "line 2: "),
        ("- a\n", "expected a mapping at the top, got list"),
        ("", "name is missing and has no default; add it"),
        ("name: &a [&b [x, x], *b, *b, " + "*b, " * 9000 + "]", "line 1: more than 20,000 values"),
        ("name: x\nseeds: !!bool perhaps", "line 2: 'perhaps' is not true or false"),
        ("name: x\nseeds: " + "8" * 400, "line 2: '888"),
        ('name: x\nquestion: "\\ud834"', r"line 2: '\ud834' holds the control character"),
        ('name: x\nquestion: "\\e]0;hi"', r"line 2: '\x1b]0;hi' holds the control character"),
        ('name: x\nbase: {store: "/a\\0"}', r"line 2: '/a\x00' holds the control character"),
        ("base: {}\nname: " + "y" * 5000, "name: study name 'yyy"),
        ("name: x\n" + "z" * 900 + ": 1", "zzz"),
    ],
)
def test_a_file_that_is_no_study_is_named_with_the_line(text, message, studies, capsys, tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    for command, *words in (("plan", "--cohort", "x"), ("run", "--cohort", "x"), ("status",)):
        shown = refusal(capsys, command, file, "--store", studies, *words)
        assert shown.startswith(f"{file}: {message}")
        assert len(shown) < 1001
        assert shown.isprintable()


def test_a_plan_that_is_refused_names_the_file(studies, cohort, capsys, tmp_path):
    worker_group = {"stages": {"finetune": {"workers": 64, "gpus": 1}}}
    file = toys.write_file(tmp_path, toys.ABLATION, resources=worker_group)
    words = ["study", "plan", str(file), "--store", str(studies), "--cohort", "x"]
    assert front.main([*words, "--no-calibration"]) == 2
    assert f"refused: {file}: stage finetune needs 64 workers" in capsys.readouterr().err


def test_a_mistake_on_the_command_line_is_not_the_files(studies, cohort, capsys, tmp_path):
    file = toys.write_file(tmp_path, toys.ABLATION)
    message = refusal(capsys, "plan", file, "--store", studies, "--cohort", "absent")
    assert not message.startswith(str(file))
    assert "absent" in message


def test_a_cohort_that_does_not_meet_the_base_configuration_is_refused(studies, capsys, tmp_path):
    make_cohort(size=16).write(tmp_path / "small")
    file = toys.write_file(tmp_path, toys.ABLATION)
    for command in ("plan", "run"):
        message = refusal(
            capsys, command, file, "--store", studies, "--cohort", str(tmp_path / "small")
        )
        assert message.startswith(f"{tmp_path / 'small'}: stored crops of 16 pixels are small")
    make_cohort(size=32).write(tmp_path / "large")
    words = ["--store", str(studies), "--cohort", str(tmp_path / "large"), "--no-calibration"]
    assert front.main(["study", "plan", str(file), *words]) == 0
