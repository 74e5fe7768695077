import argparse
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from namd.cli.cohort import add_parser
from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.cohort import Cohort


def command(*words: str) -> int:
    parser = argparse.ArgumentParser("namd")
    add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["cohort", *words])
    return int(arguments.func(arguments))


@pytest.fixture
def crops(tmp_path) -> list[str]:
    """Options that name an npz of 30 blurred discs and its table."""
    rows, columns = np.indices((71, 71)) - 35
    distance = np.hypot(rows, columns) * 0.5
    rng = generator("test-cohort-command")
    radii = 3 + np.arange(30) % 5
    inside = distance[None] <= radii[:, None, None]
    hu = np.where(inside, 20, -850) + rng.normal(0, 20, inside.shape)
    np.savez(tmp_path / "c.npz", hu=hu.astype(np.int16), mask=inside)
    table = pd.DataFrame(
        {
            "nodule_id": range(30),
            "patient_id": [f"P{i}" for i in range(30)],
            "pixel_spacing_mm": 0.5,
            "SCT_LONG_DIA": 2 * radii,
            "SCT_PERP_DIA": 2 * radii,
            "SCT_PRE_ATT": 1 + np.arange(30) % 3,
            "SCT_MARGINS": 2,
        }
    )
    table.to_csv(tmp_path / "c.csv", index=False)
    return ["--images", str(tmp_path / "c.npz"), "--table", str(tmp_path / "c.csv")]


@pytest.fixture
def built(crops, tmp_path) -> str:
    folder = str(tmp_path / "C")
    simulate = ["--simulate-followup", "--replicates", "2", "--settings", "signs.strength=0.5"]
    simulate += ["prevalence=0.5"]
    assert command("build", "crops", *crops, *simulate, "--seed", "23", "--out", folder) == 0
    return folder


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_build_then_check_card_and_show(built, tmp_path, capsys):
    capsys.readouterr()
    assert command("check", built, "--json") == 0
    found = last_line(capsys)
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["cases"] == 60
    assert found["patients"] == 30
    assert set(found["splits"]["train"]) >= {"cases", "patients", "malignant"}
    assert {"label", "followup", "age"} <= set(found["simulated"])
    assert set(found["ideal_auroc"]) <= {"train", "validation", "test"}
    assert command("card", built) == 0
    assert "`signs.strength`: 0.5" in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert command("show", built, "--out", str(sheet), "--num", "2", "--json") == 0
    assert last_line(capsys) == {"sheet": str(sheet), "cases": 2}
    assert sheet.is_file()


def test_the_same_command_builds_the_same_cohort_and_another_seed_another(crops, tmp_path, capsys):
    prints = []
    for name, seed in (("A", "1"), ("B", "1"), ("D", "2")):
        out = ["--seed", seed, "--out", str(tmp_path / name), "--json"]
        command("build", "crops", *crops, "--simulate-followup", "--replicates", "1", *out)
        prints.append(last_line(capsys)["fingerprint"])
    assert prints[0] == prints[1] != prints[2]


def test_lines_left_out_of_the_cohort_are_reported(crops, tmp_path, capsys):
    table = pd.read_csv(crops[3])
    table.loc[:2, "SCT_LONG_DIA"] = 40
    table.to_csv(crops[3], index=False)
    words = ["build", "crops", *crops, "--simulate-followup", "--seed", "1", "--out"]
    assert command(*words, str(tmp_path / "A")) == 0
    assert capsys.readouterr().out.endswith("\nleft out of the table: 3 not 4-22 mm\n")
    assert command(*words, str(tmp_path / "B"), "--json") == 0
    assert last_line(capsys)["left_out"] == {"not 4-22 mm": 3}


def test_without_simulation_nothing_is_simulated(crops, tmp_path, capsys):
    command("build", "crops", *crops, "--seed", "1", "--out", str(tmp_path / "R"), "--json")
    found = last_line(capsys)
    assert found["simulated"] == []
    assert found["left_out"] == {}
    assert found["ideal_auroc"] is None
    assert found["splits"]["train"]["followups"] == 0


def test_a_broken_cohort_is_refused_with_its_problems(built, capsys):
    cohort = Cohort.read(built)
    cohort.table.loc[0, "gender"] = 5.0
    cohort.write(built, overwrite=True)
    capsys.readouterr()
    assert command("check", built, "--json") == 2
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert found["ok"] is False
    assert found["problems"] == ["gender 5 is none of 1, 2 or missing in crops-00000-r0"]
    assert "problem: gender 5" in err


def test_a_cohort_with_problems_is_not_built(crops, tmp_path):
    table = pd.read_csv(crops[3])
    table["SCT_MARGINS"] = 7
    table.to_csv(crops[3], index=False)
    with pytest.raises(InputError, match="SCT_MARGINS 7 is none of 1, 2, 3 or missing in crops-0"):
        command("build", "crops", *crops, "--seed", "1", "--out", str(tmp_path / "R"))
    assert not (tmp_path / "R").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replicates", "2"], "add --simulate-followup"),
        (["--simulate-followup", "--replicates", "0"], "replicates"),
        (["--simulate-followup", "--settings", "signs.strenght=1"], "signs.strength"),
        (["--size", "4"], "size must be at least 8"),
    ],
)
def test_options_without_sense_are_refused(crops, tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        command("build", "crops", *crops, *words, "--seed", "1", "--out", str(tmp_path / "R"))


def test_an_occupied_folder_is_refused_before_any_work(crops, built):
    with pytest.raises(InputError, match="exists already"):
        command("build", "crops", "--images", "no", "--table", "no", "--seed", "1", "--out", built)


def test_the_command_is_declared_without_anything_heavy():
    heavy = "numpy", "torch", "pandas", "pyarrow", "scipy", "matplotlib"
    code = (
        "import argparse, sys; from namd.cli.cohort import add_parser;"
        "add_parser(argparse.ArgumentParser().add_subparsers());"
        f"sys.exit(any(name in sys.modules for name in {heavy!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_real_crops_become_a_cohort_that_passes(shared_data, tmp_path, capsys):
    folder = shared_data / "lidc_nodules2d"
    files = ["--images", str(folder / "nodules.npz"), "--table", str(folder / "nodules.csv")]
    out = str(tmp_path / "C")
    simulate = ["--simulate-followup", "--replace", "label"]
    command("build", "crops", *files, *simulate, "--seed", "23", "--out", out)
    assert command("check", out, "--json") == 0
    found = last_line(capsys)
    assert found["splits"]["test"]["malignant"] >= 80
    assert 0.7 < found["ideal_auroc"]["test"] < 0.95


@pytest.mark.slow
def test_the_phantom_needs_no_data(tmp_path, capsys):
    out = str(tmp_path / "P")
    sizes = ["--cases", "60", "--replicates", "2"]
    assert command("build", "phantom", *sizes, "--seed", "3", "--out", out) == 0
    assert 0 < Cohort.read(out).table["case_id"].nunique() <= 60


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda table: table["split"] != "validation", "split validation: no case"),
        (
            lambda table: (table["split"] != "test") | (table["label"] != 1),
            "split test: no malignant case among",
        ),
        (
            lambda table: (table["split"] != "train") | (table["label"] != 0),
            "split train: no benign case among",
        ),
    ],
)
def test_a_split_that_cannot_be_used_is_one_problem_line_and_exit_2(built, spoil, problem, capsys):
    cohort = Cohort.read(built)
    cohort.select(spoil(cohort.table).to_numpy()).write(built, overwrite=True)
    capsys.readouterr()
    assert command("check", built, "--json") == 2
    shown = capsys.readouterr()
    (line,) = json.loads(shown.out.splitlines()[-1])["problems"]
    assert line.startswith(problem)
    assert f"problem: {problem}" in shown.err


def test_building_a_cohort_that_cannot_be_used_warns(crops, tmp_path, capsys):
    out = ["--seed", "1", "--out", str(tmp_path / "R"), "--json"]
    assert command("build", "crops", *crops, *out) == 0
    shown = capsys.readouterr()
    warnings = json.loads(shown.out.splitlines()[-1])["warnings"]
    assert any(line.startswith("split train: no benign and no malignant") for line in warnings)
    assert "warning: split train" in shown.err
    simulate = ["--simulate-followup", "--replicates", "2", "--settings", "prevalence=0.5"]
    out = ["--seed", "23", "--out", str(tmp_path / "S"), "--json"]
    assert command("build", "crops", *crops, *simulate, "--size", "64", *out) == 0
    assert last_line(capsys)["warnings"] == []
