"""The report: whole, readable by machines, without outer resources, and honest about its data."""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_study import MadeStudy, made_ablation

from analysis.study_cost import failures, stage_costs, total
from analysis.study_report import make_report, seeds_csv, to_csv, to_markdown, write_report
from analysis.wording import number, p_text, seconds_text, signed
from namd.ledger import schema
from namd.ledger.view import read_view

OUTER = re.compile(r"""(?:src|href|url\()\s*=?\s*["']?\s*(?!data:)[a-z]*:?//""", re.IGNORECASE)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[MadeStudy, Path]:
    folder = tmp_path_factory.mktemp("report")
    study = made_ablation(folder)
    study.end(study.queue("no_align", 3), schema.FAILED, "vae: loss is not finite <at step 3>")
    study.close()
    view = read_view(study.storage, study.name)
    return study, write_report(make_report(study.storage, view, warnings=("Numbers mean little.",)),
                               folder / "out")  # fmt: skip


def test_the_page_is_well_formed_and_opens_offline(written):
    text = written[1].read_text()
    ElementTree.fromstring(text.partition("\n")[2])
    HTMLParser().feed(text)
    assert OUTER.findall(text) == []
    outside_data = re.sub(r"data:image/[^\"]*", "", text)
    assert "http" not in outside_data
    assert "<script" not in text
    assert text.count("data:image/svg+xml;base64,") == 3


def test_an_outer_resource_would_be_seen():
    address = "https:" + "//a.b/c.js"
    assert OUTER.findall(f'<script src="{address}">')
    assert not OUTER.findall('<img src="data:image/png;base64,//x">')


def test_it_says_what_a_reader_must_know(written):
    text = written[1].read_text()
    for found in (
        "Does aligning help?",
        "SIMULATED",
        "Research use only",
        "90 of 90 patients, 30 malignant",
        "vae.alignment.weight = 0",
        "resamples of patients",
        "loss is not finite &lt;at step 3&gt;",
        "no_align, seed 3",
        "commit abc",
        "torch 2.9",
        "device time saved by reuse",
        "Numbers mean little.",
        "cannot give less than p = 0.25",
    ):
        assert found in text, found
    assert "c0001" not in text
    assert "p0001" not in text


def test_what_is_not_simulated_is_not_called_so(tmp_path):
    study = made_ablation(tmp_path, seeds=1, simulated=False)
    view = read_view(study.storage, study.name)
    text = write_report(make_report(study.storage, view), tmp_path / "out").read_text()
    assert "SIMULATED" not in text
    assert "Research use only" in text


def test_a_study_that_has_nothing_yet_has_a_report_too(tmp_path):
    study = made_ablation(tmp_path, seeds=0)
    study.queue("full", 0)
    view = read_view(study.storage, study.name)
    text = write_report(make_report(study.storage, view), tmp_path / "out").read_text()
    ElementTree.fromstring(text.partition("\n")[2])
    assert "arm full is not finished: 1 pending" in text
    assert "SIMULATED" in text
    assert "Every metric" not in text


def test_the_same_study_gives_the_same_files(written, tmp_path):
    study, page = written
    view = read_view(study.storage, study.name)
    report = make_report(study.storage, view, warnings=("Numbers mean little.",))
    again = write_report(report, tmp_path)
    assert again.read_text() == page.read_text()
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == [
        "figures/arms.png",
        "figures/arms.svg",
        "figures/cost.png",
        "figures/cost.svg",
        "figures/differences.png",
        "figures/differences.svg",
        "report.html",
        "seeds.csv",
        "table.csv",
        "table.json",
        "table.md",
    ]


def test_tables_hold_every_number(written):
    study, _ = written
    report = make_report(study.storage, read_view(study.storage, study.name))
    lines = list(csv.DictReader(io.StringIO(to_csv(report.table))))
    one = next(r for r in lines if r["arm"] == "no_align" and r["metric"] == "auroc")
    row = report.table.row("no_align")
    assert float(one["mean"]) == row["auroc"]["mean"]
    assert float(one["difference_low"]) == row["difference"]["low"]
    seeds = list(csv.DictReader(io.StringIO(seeds_csv(report.table))))
    assert sum(r["arm"] == "full" and r["metric"] == "auroc" for r in seeds) == 3
    assert "| no_align | vae.alignment.weight = 0 | 3 of 4 |" in to_markdown(report)


def test_cost_is_what_was_executed_and_reuse_what_was_not(written):
    study, _ = written
    view = read_view(study.storage, study.name)
    costs = {cost.stage: cost for cost in stage_costs(study.storage, view)}
    judge, vae = costs["judge"], costs["vae"]
    assert (judge.wanted, judge.distinct, judge.executed, judge.saved_seconds) == (9, 1, 1, 80.0)
    assert (vae.wanted, vae.distinct, vae.executed, vae.saved_seconds) == (9, 6, 6, 30.0)
    whole = total(costs.values())
    assert whole.device_seconds == view.device_seconds()
    assert [f.trials for f in failures(view)] == [("no_align, seed 3",)]


def test_an_execution_of_two_attempts_is_counted_once(tmp_path):
    study = made_ablation(tmp_path, seeds=1)
    trial = study.queue("full", 9)
    for attempt in (1, 2):
        body = {"stage": "vae", "key": "k", "cached": False, "seconds": 4.0}
        found = body | {"device_seconds": 4.0, "artifact": "one"}
        study.writer.append(schema.Identity(trial, attempt, schema.STARTED))
        study.writer.append(schema.Identity(trial, attempt, "stage/vae"), found)
    costs = {c.stage: c for c in stage_costs(study.storage, read_view(study.storage, study.name))}
    assert costs["vae"].executed == 3
    assert costs["vae"].wanted == 4


def test_numbers_in_words():
    assert [number(v) for v in (None, 0.12345, 1234.5)] == ["-", "0.123", "1234"]
    assert [signed(v) for v in (None, 0.0, -1e-9, 0.02, -0.02)] == [
        "-", "0.000", "0.000", "+0.020", "\u22120.020",
    ]  # fmt: skip
    assert [p_text(v) for v in (None, 1e-9, 0.0123, 1.0)] == ["-", "< 0.001", "0.012", "1"]
    assert [seconds_text(v) for v in (1.25, 600, 36000)] == ["1.2 s", "10.0 min", "10.0 h"]
