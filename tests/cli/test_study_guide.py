"""Every command and study file of the guide is one that the program takes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from namd.cli.main import build_parser
from namd.config.errors import InputError
from namd.study.spec import parse_study
from namd.study.trials import Configurator

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = REPOSITORY / "docs" / "studies.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    inline = re.findall(r"`(namd [^`]+)`", GUIDE.read_text())
    shown = [line for block in blocks("") for line in block.splitlines()]
    lines = [line for line in [*shown, *inline] if line.startswith("namd ")]
    return [line for line in lines if len(line.split()) > 3]


@pytest.mark.parametrize("line", commands())
def test_a_command_is_understood(line):
    words = shlex.split(line.partition(" > ")[0])[1:]
    parsed = build_parser(words).parse_args(words)
    assert callable(parsed.func)
    file = getattr(parsed, "file", None)
    if file is not None and str(file).endswith(".yaml"):
        assert (REPOSITORY / file).is_file()


def test_the_guide_shows_every_command():
    text = GUIDE.read_text()
    parser = build_parser(["study"])
    (studies,) = parser._subparsers._group_actions
    (inner,) = studies.choices["study"]._subparsers._group_actions
    for name in inner.choices:
        assert f"namd study {name}" in text


def test_an_option_that_does_not_exist_is_refused():
    words = ["study", "status", "x", "--no-such-option"]
    with pytest.raises(InputError):
        build_parser(words).parse_args(words)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_study_file_is_one(text):
    Configurator(parse_study(yaml.safe_load(text))).check()
