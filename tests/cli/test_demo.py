"""The demo from nothing to a report, at preset tiny, and what a second call does."""

import json
import os
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import pytest

from namd.api.demo import run_demo
from namd.cli import demo
from namd.cli.main import main
from namd.config.errors import ConfigError
from namd.ledger.writing import open_writer
from namd.pipeline.store import open_store
from namd.storage.local import LocalStorage
from namd.study.record import open_study
from namd.study.reporting import SilentStudyReporter
from namd.study.spec import parse_study
from namd.study.trials import Configurator

SMALLEST = {
    "name": "demo",
    "question": "Does it run?",
    "base": {"preset": "tiny", "method": "namd", "cohort": "phantom:500", "store": "..."},
    "seeds": 2,
    "ablation": {"design": "leave-one-out", "toggles": {"align": {"vae.alignment.weight": 0}}},
    "evaluate": {"split": "test", "num_draws": 2, "primary": "auroc", "secondary": ["auprc"]},
}


def quiet():
    return nullcontext(SilentStudyReporter())


def test_a_demo_killed_before_its_first_record_goes_on(tmp_path, monkeypatch):
    spec = parse_study(SMALLEST)
    open_store(str(tmp_path))
    with open_writer(LocalStorage(tmp_path), spec.name):
        pass
    calls = []
    driver = types.SimpleNamespace(run_study=lambda *_given, **more: calls.append(more))
    monkeypatch.setitem(sys.modules, "namd.distributed.driver", driver)
    run_demo(spec, tmp_path / "cohort", str(tmp_path), quiet, print)
    assert [call["resume"] for call in calls] == [True]


def test_a_demo_begun_with_another_file_is_refused(tmp_path, monkeypatch):
    spec = parse_study(SMALLEST)
    open_store(str(tmp_path))
    with open_study(LocalStorage(tmp_path), spec, Configurator(spec)) as record:
        record.stopped("for now")
    other = {**SMALLEST, "base": {**SMALLEST["base"], "set": {"vae.num_steps": 7}}}
    monkeypatch.setitem(sys.modules, "namd.distributed.driver", None)
    with pytest.raises(ConfigError, match=r"base\.set"):
        run_demo(parse_study(other), tmp_path / "cohort", str(tmp_path), quiet, print)


@pytest.mark.slow
@pytest.mark.ray
def test_the_demo_trains_once_and_reports_both_times(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo_study", lambda: parse_study(SMALLEST))
    words = ["demo", "--out", str(tmp_path / "demo"), "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out.splitlines()[-1])
    assert answer["trials"]["completed"] == 4
    assert {row["arm"]: row["seeds"] for row in answer["arms"]} == {"full": 2, "no_align": 2}
    assert len(answer["pictures"]) == 2
    assert all(Path(path).stat().st_size > 1000 for path in answer["pictures"])
    assert "simulated" in captured.err
    page = Path(answer["html"]).read_text()
    assert "SIMULATED" in page
    assert "numbers mean nothing" in page
    assert os.fspath(tmp_path) not in page

    monkeypatch.setitem(sys.modules, "namd.distributed.driver", None)
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "nothing is trained" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["arms"] == answer["arms"]
