"""What the cluster files ask a person to type exists, and agrees with the rest."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from ray.scripts.scripts import cli as ray_cli

from namd.cli.main import build_parser
from namd.config.errors import InputError
from namd.config.parsing import parse
from namd.distributed.session import DRIVER_RESOURCE
from namd.study.spec import ResourcesSpec, read_study
from namd.study.trials import Configurator

FILES = ("README.md", "raycluster.yaml", "rayjob.yaml", "ray-up.yaml", "slurm.sbatch")


@pytest.fixture
def readme(cluster_folder):
    return (cluster_folder / "README.md").read_text(encoding="utf-8")


def commands(text: str, program: str) -> list[list[str]]:
    """Return the words of each indented or quoted command of a program."""
    text = text.replace("\\\n", " ")
    typed = re.findall(rf"^ {{4}}{program} (.*)$", text, re.MULTILINE)
    quoted = re.findall(rf"`{program} ([a-z].*?)`", text)
    return [shlex.split(line, comments=True) for line in [*typed, *quoted]]


def test_every_namd_command_is_one_that_the_parser_knows(readme):
    typed = [words for words in commands(readme, "namd") if len(words) > 2]
    assert len(typed) >= 4
    for words in typed:
        build_parser(words).parse_args(words)


def test_an_unknown_option_would_be_seen(readme):
    words = next(words for words in commands(readme, "namd") if words[0] == "submit")
    with pytest.raises(InputError):
        build_parser(words).parse_args([*words, "--wiat"])


def test_every_ray_command_is_one_that_ray_knows(readme):
    named = {words[0] for words in commands(readme, "ray")}
    assert {"up", "down", "get-auth-token", "dashboard"} <= named
    assert named <= ray_cli.commands.keys()


def test_every_file_that_is_named_is_there(readme, cluster_folder):
    named = set(re.findall(r"\b(?:cluster|experiments)/[\w.-]+\w", readme))
    assert named
    for name in named:
        assert (cluster_folder.parent / name).is_file(), name


def test_the_versions_agree(readme, locked_ray):
    assert set(re.findall(r"\bRay (\d+\.\d+\.\d+)", readme)) == {locked_ray}


@pytest.mark.parametrize("name", FILES)
def test_the_drivers_unit_has_one_name(cluster_folder, name):
    text = (cluster_folder / name).read_text(encoding="utf-8")
    assert set(re.findall(r"\bnamd_driver\w*", text)) == {DRIVER_RESOURCE}


def test_the_resources_shown_can_be_reserved(readme):
    (block,) = re.findall(r"^ {4}resources:\n(?: {6}.*\n)+", readme, re.MULTILINE)
    shown = parse(ResourcesSpec, yaml.safe_load(block)["resources"], "resources")
    assert shown.of("pretrain", "pretrain").least == 2
    assert shown.of("vae", "vae").gpus == 1


def test_the_smoke_study_is_one_that_its_method_can_run(cluster_folder: Path):
    spec = read_study(cluster_folder / "smoke.yaml")
    Configurator(spec).check()
    assert spec.ablation is not None
    assert [arm.name for arm in spec.ablation.arms()] == ["full", "soft_prompts"]
