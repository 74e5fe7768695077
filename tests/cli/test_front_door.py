"""The front door: quick, one line for a mistake, one object for a machine."""

import argparse
import io
import json
import subprocess
import sys

import pytest

from namd.cli import main as front
from namd.cli import run as run_command
from namd.cli.output import answer, cell, duration, echo, require_writable, score_table, size
from namd.config.errors import InputError, StageError


def test_the_version_is_the_installed_one(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit) as ended:
        front.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"namd {version('namd')}\n"


def test_every_command_is_declared_without_importing_what_it_uses():
    code = (
        "import sys; from namd.cli.main import build_parser; build_parser().format_help();"
        "heavy = ('torch', 'ray', 'numpy', 'pandas', 'pyarrow', 'transformers', 'rich');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_takes_less_than_half_a_second_of_computing():
    code = (
        "import time; from namd.cli.main import build_parser; build_parser().format_help();"
        "print(time.process_time())"
    )
    best = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    )
    assert best < 0.5


def test_help_ends_with_zero(capsys):
    with pytest.raises(SystemExit) as ended:
        front.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for name in front.COMMANDS:
        assert name in printed


@pytest.mark.parametrize(
    "words",
    [
        ["runn"],
        ["run", "--preset", "tiny"],
        ["run", "--cohort", "x"],
        ["run", "--cohort", "x", "--preset", "tinny"],
        ["run", "--cohort", "x", "--config", "absent.yaml"],
        ["run", "--cohort", "x", "--preset", "tiny", "--set", "vae.num_stepz=3"],
        ["run", "--cohort", "x", "--preset", "tiny", "--set", "vae.num_steps=lots"],
        ["run", "--cohort", "x", "--preset", "tiny", "--set", "vae"],
        ["run", "--cohort", "x", "--preset", "tiny"],
        ["store", "ls", "--store", "absent"],
        ["store", "ls", "--store", "s3:/bucket/store"],
        ["run", "--cohort", "x", "--preset", "tiny", "--store", "s3:bucket"],
        ["store", "show", "abcdef"],
        ["presets", "tinny"],
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAMD_STORE", raising=False)
    assert front.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_s3_with_a_slash_too_few_is_corrected(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3").mkdir()
    for words in (["store", "ls"], ["study", "list"]):
        assert front.main([*words, "--store", "s3:/bucket/a"]) == 2
        assert "did you mean s3://bucket/a?" in capsys.readouterr().err
        assert front.main([*words, "--store", "s3"]) == 2
        assert "did you mean" not in capsys.readouterr().err


def test_what_is_wrong_in_a_configuration_file_begins_with_its_name(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("vae: {num_stepz: 3}\n")
    words = ["run", "--cohort", "x", "--preset", "tiny", "--store", "s", "--config", str(path)]
    assert front.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: vae.num_stepz")
    path.write_text("vae: {num_steps: 3}\n")
    assert front.main([*words, "--set", "vae.num_stepz=3"]) == 2
    assert str(path) not in capsys.readouterr().err


def test_a_mistake_with_json_is_also_one_object(capsys):
    assert front.main(["presets", "tinny", "--json"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out.splitlines()[-1])
    assert answer["exit"] == 2
    assert "did you mean tiny?" in answer["error"]


def test_what_is_given_in_bulk_or_as_an_escape_sequence_is_shown_short_and_escaped(capsys):
    words = ["run", "--cohort", "x", "--preset", "tiny", "--store", "s", "--set"]
    for given in ("vae.num_steps=" + "9" * 5000, "v" * 5000 + "=1", 'vae.kind="\\e[31m"', "\x1b=1"):
        assert front.main([*words, given, "--json"]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert len(captured.err) < 1010
        assert captured.err.rstrip("\n").isprintable()
        assert json.loads(captured.out)["error"] == captured.err[7:-1]


@pytest.mark.parametrize("given", ["[]", "{}", "3", "null", "[namd]", "namdd"])
def test_a_method_that_is_no_name_is_refused(given, capsys, tmp_path):
    words = ["run", "--preset", "tiny", "--cohort", "phantom:5", "--store", str(tmp_path / "S")]
    assert front.main([*words, "--plan", "--set", f"method={given}"]) == 2
    assert capsys.readouterr().err.startswith("error: method=")
    assert front.main([*words, "--plan", "--set", "method=namd"]) == 0


@pytest.mark.parametrize("option", ["--source-name", "--citation", "--licence"])
def test_a_text_for_the_card_holds_no_control_character(option, capsys, tmp_path):
    words = ["cohort", "build", "crops", "--images", "x.npz", "--table", "y.csv", "--seed", "1"]
    words += ["--out", str(tmp_path / "C"), option]
    for given in ("\x1b[31m", "a\udcffb", "\x00"):
        assert front.main([*words, given]) == 2
        assert "control character" in capsys.readouterr().err
    assert front.main([*words, "Größer, 2026"]) == 2
    assert "control character" not in capsys.readouterr().err


def test_an_answer_is_escaped_and_its_lines_stay_lines(capsys, monkeypatch):
    echo("a\x1b[2Jb")
    answer(argparse.Namespace(json=False), {}, "one\ntwo \x9b31m \ud800 größer")
    captured = capsys.readouterr()
    assert captured.err == "a\\x1b[2Jb\n"
    assert captured.out == "one\ntwo \\x9b31m \\ud800 größer\n"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    answer(argparse.Namespace(json=False), {}, "größer")
    sys.stdout.seek(0)
    assert sys.stdout.read() == "gr\\xf6\\xdfer\n"


def test_without_mistake_there_is_no_error(capsys):
    assert front.main(["presets", "tiny", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["method"] == "namd"
    assert captured.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a\nb"), 2),
        (StageError("vae: loss is not finite"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(error, code, monkeypatch, capsys):
    def fail(_arguments):
        raise error

    monkeypatch.setattr(run_command, "run_command", fail)
    assert front.main(["run", "--cohort", "x"]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail(_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(run_command, "run_command", fail)
    with pytest.raises(ZeroDivisionError):
        front.main(["run", "--cohort", "x"])


def test_presets_are_listed_with_what_they_are_for(capsys):
    assert front.main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("tiny  ") and "tests" in line for line in lines)
    assert front.main(["presets", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["descriptions"]) == answer["presets"]
    assert len(answer["presets"]) == len(lines)


def test_methods_name_their_papers_and_presets(capsys):
    assert front.main(["methods", "--json"]) == 0
    (namd, *_) = json.loads(capsys.readouterr().out)["methods"]
    assert {"name", "paper", "stochastic", "presets"} <= set(namd)
    assert namd["name"] == "namd"
    assert front.main(["methods"]) == 0
    assert "arXiv" in capsys.readouterr().out


def test_values_are_reported_in_words():
    assert cell(None) == "-"
    assert cell(0.5) == "0.500"
    assert (
        cell({"mean": 0.8, "std": 0.01, "low": 0.7, "high": 0.9}) == "0.800 ± 0.010 [0.700, 0.900]"
    )
    assert cell({"mean": 0.8, "std": None}) == "0.800"
    assert cell({"value": 0.8, "low": 0.7, "high": 0.9}) == "0.800 [0.700, 0.900]"
    assert cell({"rule": 0.8}) == "rule 0.800"
    assert [duration(s) for s in (8, 725, 11400)] == ["8 s", "12 min 05 s", "3 h 10 min"]
    assert [size(b) for b in (12, 2048, 3 << 20, 5 << 30)] == [
        "12 B",
        "2.0 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]
    text = score_table([{"row": "a", "auroc": 0.5}, {"row": "b", "fid": None}])
    assert text.splitlines()[0].split() == ["row", "auroc", "fid"]
    assert text.splitlines()[3].split() == ["b", "-", "-"]


def test_the_package_run_as_a_module_is_the_same_door():
    done = subprocess.run(
        [sys.executable, "-m", "namd", "frobnicate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "frobnicate" in done.stderr
    assert done.stderr.count("\n") == 1


UNWRITABLE = [
    ["cohort", "build", "phantom", "--seed", "1", "--out"],
    ["cohort", "build", "crops", "--images", "x", "--table", "y", "--seed", "1", "--out"],
    ["cohort", "show", "absent", "--out"],
    ["run", "--preset", "tiny", "--cohort", "absent", "--store", "S", "--picture"],
    ["predict", "--run", "k", "--dicom", "d", "--centre", "1,2,3", "--ehr", "e", "--out"],
]


@pytest.mark.parametrize("words", UNWRITABLE, ids=lambda words: " ".join(words[:2]))
def test_a_place_that_cannot_be_written_is_refused_before_the_work(words, tmp_path, capsys):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "out.png"
    assert front.main([*words, str(place)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"error: {words[-1]} {place}: cannot be written (Not a directory)")


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    for path in (tmp_path, tmp_path / "new", tmp_path / "new" / "deep" / "x.png"):
        require_writable("--out", path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_no_known_kind_is_refused_before_the_run(capsys, tmp_path):
    words = ["run", "--preset", "tiny", "--cohort", "absent", "--store", str(tmp_path / "S")]
    assert front.main([*words, "--picture", "draws"]) == 2
    assert "--picture draws: its suffix names its kind, one of .png" in capsys.readouterr().err
    assert front.main([*words, "--picture", str(tmp_path / "draws.PNG")]) == 2
    assert "absent: no cohort there" in capsys.readouterr().err
