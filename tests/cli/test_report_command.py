"""`namd report`, and the demo as far as it goes without training."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "analysis"))

from made_study import made_ablation

from namd.api.demo import run_demo
from namd.cli import demo
from namd.cli.main import main
from namd.config.errors import ConfigError


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    before, os.fsync = os.fsync, lambda _descriptor: None
    made = made_ablation(tmp_path_factory.mktemp("study"), seeds=1, cases=60)
    made.close()
    os.fsync = before
    return made


def test_the_answer_names_the_page_and_every_file(study, tmp_path, capsys):
    words = ["report", "made", "--store", str(study.root), "--out", str(tmp_path / "r"), "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["html"] == str(tmp_path / "r" / "report.html")
    assert answer["html"] in answer["files"]
    assert all(Path(path).is_file() for path in answer["files"])


def test_without_json_the_table_is_shown(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NAMD_STORE", str(study.root))
    assert main(["report", "made", "--store", str(study.root), "--out", str(tmp_path)]) == 0
    *lines, page = capsys.readouterr().out.splitlines()
    assert page == str(tmp_path / "report.html")
    assert max(map(len, lines)) <= 80
    found = "\n".join(lines)
    for part in ("arm no_align", "vae.alignment.weight = 0", "SIMULATED", "minus full"):
        assert part in found
    assert not any(line.startswith(("|", "#", "**")) for line in lines)
    assert "| no_align | vae.alignment.weight = 0 |" in (tmp_path / "table.md").read_text()


def test_on_a_terminal_the_table_is_as_wide_as_that(study, tmp_path, capsys, monkeypatch):
    words = ["report", "made", "--store", str(study.root), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns, beside in ((200, True), (60, False)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()[:-1]
        assert max(map(len, lines)) <= columns
        assert any("no_align" in x and "vae.alignment.weight = 0" in x for x in lines) == beside


def test_an_unknown_study_and_a_missing_store_are_one_line(study, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NAMD_STORE", raising=False)
    assert main(["report", "maid", "--store", str(study.root), "--out", str(tmp_path / "r")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "maid" in printed
    assert "made" in printed
    assert main(["report", "made"]) == 2
    assert main(["report", "made", "--store", str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "nowhere").exists()


def test_the_demo_is_two_arms_of_two_seeds_on_simulated_cases():
    from namd.study.trials import Configurator, ablation_trials

    spec = demo.demo_study()
    trials = ablation_trials(spec, Configurator(spec))
    assert sorted({(t.arm, t.seed) for t in trials}) == [
        ("full", 0),
        ("full", 1),
        ("no_align", 0),
        ("no_align", 1),
    ]
    assert (spec.base.preset, spec.base.cohort) == ("small", "phantom:1500")


def test_a_finished_demo_starts_nothing(study, monkeypatch):
    from namd.study.spec import parse_study

    spec = parse_study(study.specification)
    monkeypatch.setitem(sys.modules, "namd.distributed.driver", None)  # importing it would raise
    view = run_demo(spec, study.cohort.folder, str(study.root), nullcontext, print)
    assert view.counts()["completed"] == 3
    toggles = {"align": {"vae.alignment.weight": 0.5}}
    other = {"design": "leave-one-out", "toggles": toggles}
    changed = parse_study({**study.specification, "ablation": other})
    with pytest.raises(ConfigError, match="new name"):
        run_demo(changed, study.cohort.folder, str(study.root), nullcontext, print)
