"""The demo from nothing to a report, at preset tiny, and what a second call does."""

import json
import os
import sys
from pathlib import Path

import pytest

from namd.cli import demo
from namd.cli.main import main
from namd.study.spec import parse_study

SMALLEST = {
    "name": "demo",
    "question": "Does it run?",
    "base": {"preset": "tiny", "method": "namd", "cohort": "phantom", "store": "..."},
    "seeds": 2,
    "ablation": {"design": "leave-one-out", "toggles": {"align": {"vae.alignment.weight": 0}}},
    "evaluate": {"split": "test", "num_draws": 2, "primary": "auroc", "secondary": ["auprc"]},
}


@pytest.mark.slow
@pytest.mark.ray
def test_the_demo_trains_once_and_reports_both_times(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo_study", lambda: parse_study(SMALLEST))
    monkeypatch.setattr(demo, "CASES", 500)
    words = ["demo", "--out", str(tmp_path / "demo"), "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out.splitlines()[-1])
    assert told["trials"]["completed"] == 4
    assert {row["arm"]: row["seeds"] for row in told["arms"]} == {"full": 2, "no_align": 2}
    assert len(told["pictures"]) == 2
    assert all(Path(path).stat().st_size > 1000 for path in told["pictures"])
    assert "simulated" in captured.err
    page = Path(told["html"]).read_text()
    assert "SIMULATED" in page
    assert "numbers mean nothing" in page
    assert os.fspath(tmp_path) not in page

    monkeypatch.setitem(sys.modules, "namd.distributed.driver", None)
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "nothing is trained" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["arms"] == told["arms"]
