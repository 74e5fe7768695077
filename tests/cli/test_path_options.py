"""`~` means the home folder in every option and file that names a place, or none would be sure."""

import argparse
import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_studies as toys

import namd
from namd.cli import main as front
from namd.cli.named_cohorts import find_cohort
from namd.cli.study_inputs import store_url
from namd.config.errors import InputError
from namd.config.places import local_path, place
from namd.models.weights import status_of
from namd.study.spec import parse_study
from tests.data.conftest import make_cohort

NO_PATHS = {
    "A": "an address of Ray",
    "ARM": "an arm",
    "COLUMN": "a column",
    "K=V": "a setting; its paths are expanded where they are read",
    "KEY": "a run's key",
    "M": "a method",
    "NAME": "a name",
    "P": "a preset",
    "PATH": "relative to the project that is sent",
    "PRESET": "a preset",
    "STAGE/KEY|RUN": "what a store holds",
    "STAGE|KEY": "what a store holds",
    "TEXT": "free text",
    "TRIAL": "a trial",
    "x,y,z": "a point",
}
"""Metavars of texts that are no paths. A new option is typed, or its metavar enters here."""

NAMES_ALONE = {"--source-name", "--split-column", "--warm-from"}
URL_ALONE = {("submit", "--address")}


def options(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from options(inner, (*words, name))
        elif action.nargs != 0 and not action.choices:
            yield (*words, (action.option_strings or [action.dest])[0]), action


def forgotten(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options that name a place and do not expand `~`."""
    found = []
    for words, action in options(parser):
        if action.type is Path or (
            action.type is None
            and words not in URL_ALONE
            and (
                action.metavar not in NO_PATHS
                or (action.metavar == "NAME" and words[-1] not in NAMES_ALONE)
            )
        ):
            found.append(" ".join(words))
    return found


def test_every_option_that_names_a_place_expands_the_home_folder():
    assert forgotten(front.build_parser()) == []
    typed = [" ".join(w) for w, a in options(front.build_parser()) if a.type in (local_path, place)]
    assert {"run --store", "study plan file", "report --out", "predict --ehr"} <= set(typed)


@pytest.mark.parametrize("more", [{"metavar": "DIR"}, {"metavar": "F", "type": Path}, {}])
def test_an_option_that_forgets_is_found(more):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    commands.add_parser("export").add_argument("--to", **more)
    assert forgotten(parser) == ["export --to"]
    other = argparse.ArgumentParser()
    other.add_argument("--to", **{**more, "type": local_path})
    assert forgotten(other) == []


def test_one_function_expands_the_home_folder():
    root = Path(namd.__file__).parent
    callers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("expanduser", "home")
    }
    # account asks whether there is a home at all; jobs looks for Ray's own token file.
    assert callers <= {"config/places.py", "config/account.py", "distributed/jobs.py"}
    assert "config/places.py" in callers


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("NAMD_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_place_in_a_study_file_or_the_environment_is_expanded(home, monkeypatch):
    base = {**toys.ABLATION["base"], "store": "~/store", "cohort": "~/cohort"}
    spec = parse_study({**toys.ABLATION, "base": base})
    assert store_url(None, spec) == str(home / "store")
    make_cohort(size=32).write(home / "cohort")
    assert find_cohort("~/cohort", home) == home / "cohort"
    monkeypatch.setenv("NAMD_STORE", "~/other")
    assert store_url(None) == str(home / "other")
    assert front.build_parser().parse_args(["store", "ls"]).store == str(home / "other")
    assert store_url("s3://bucket/~a") == "s3://bucket/~a"


def test_weights_in_a_configuration_are_looked_for_under_the_home_folder(home):
    assert str(home / "sd") in " ".join(status_of("sd15-unet", "~/sd").looked)
    assert str(home / "vgg.pth") in " ".join(status_of("lpips-vgg", "~/vgg.pth").looked)


def test_the_shell_does_not_expand_after_an_equals_sign_but_the_command_does(home, capsys):
    make_cohort().write(home / "cohort")
    assert front.main(["cohort", "show", "~/cohort", "--num=2", "--out=~/sheet.png"]) == 0
    assert (home / "sheet.png").is_file()
    assert not (home.parent / "~").exists()
    assert str(home / "sheet.png") in capsys.readouterr().out


@pytest.mark.parametrize("word", ["x" * 300, "x/" * 2100, "x" * 300 + ".yaml", "~/" + "x" * 300])
@pytest.mark.parametrize(
    "words",
    [
        ["study", "plan", "{}", "--store", "S"],
        ["study", "status", "{}", "--store", "S"],
        ["study", "list", "--store", "{}"],
        ["run", "--preset", "tiny", "--store", "S", "--cohort", "{}"],
        ["run", "--preset", "tiny", "--store", "S", "--cohort", "C", "--config={}"],
        ["cohort", "check", "{}"],
    ],
)
def test_a_path_that_no_disk_takes_is_one_line(words, word, home, capsys):
    assert front.main([part.replace("{}", word) for part in words]) == 2
    printed = capsys.readouterr().err
    assert "shorten it" in printed
    assert printed.count("\n") == 1
    assert len(printed) < 500
    assert str(local_path("x" * 255)) == "x" * 255


@pytest.mark.parametrize("field", ["cohort", "store"])
def test_a_path_in_a_study_file_that_no_disk_takes_is_one_line(field, studies, capsys, tmp_path):
    base = {**toys.ABLATION["base"], field: "/" + "x" * 300}
    file = toys.write_file(tmp_path, toys.ABLATION, base=base)
    words = ["study", "plan", str(file)] + (["--store", str(studies)] if field == "cohort" else [])
    assert front.main([*words]) == 2
    assert "shorten it" in capsys.readouterr().err


def test_an_unknown_home_folder_is_one_line(home, monkeypatch, capsys):
    assert front.main(["cohort", "card", "~nobody-of-that-name/C"]) == 2
    assert "the home folder is not known" in capsys.readouterr().err
    with pytest.raises(InputError, match="NUL"):
        local_path("a\0b")
    assert place("a-study") == "a-study"
    assert place(f"s3://bucket/{'k' * 300}").endswith("k")
    assert local_path("a/~b") == Path("a/~b")
    assert os.fspath(local_path("~/b")) == f"{home}/b"
