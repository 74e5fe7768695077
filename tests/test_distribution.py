"""A wheel and an sdist hold the packages, and nothing that lies beside their sources."""

import subprocess
import tomllib
from pathlib import Path

import pathspec
import pytest

from tests.distributed.planted import ASKED_FOR, DISGUISED, NEVER

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("namd", "analysis", "experiments")


@pytest.fixture(scope="module")
def build():
    """Hatch's table of pyproject.toml."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tool"]["hatch"]["build"]


@pytest.fixture(scope="module")
def included(build):
    """Whether a path enters a distribution, as Hatch reads its patterns: those of git."""
    return pathspec.GitIgnoreSpec.from_lines(build["include"]).match_file


def test_every_file_of_the_packages_enters(included):
    command = ["git", "-C", str(REPOSITORY), "ls-files", *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("needs the git repository to know which files belong to it")
    names = [name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]
    assert len(names) > 200
    assert [name for name in names if not included(name)] == []


def test_a_wheel_leaves_the_experiments_in_the_checkout(build, included):
    excluded = pathspec.GitIgnoreSpec.from_lines(build["targets"]["wheel"]["exclude"]).match_file
    for name in ("experiments/__init__.py", "experiments/table-ablation.yaml"):
        assert included(name)
        assert excluded(name)
    for name in ("namd/__init__.py", "namd/cli/demo.yaml", "analysis/study_table.py"):
        assert included(name)
        assert not excluded(name)


def test_nothing_that_lies_beside_them_enters(included):
    beside = [name for name in (*NEVER, *DISGUISED, *ASKED_FOR) if not name.endswith(".py")]
    assert len(beside) > 80
    for name in beside:
        for folder in ("", "namd/", "namd/data/", "analysis/", "experiments/", "tests/"):
            assert not included(f"{folder}{name}"), f"{folder}{name}"


def test_no_folder_enters_as_a_whole(build):
    """Hatch takes all that lies in such a folder, whatever the patterns say."""
    targets = build.get("targets", {})
    whole = {"packages", "only-include", "force-include", "artifacts"}
    assert not whole & build.keys()
    for target in targets.values():
        assert not whole & target.keys()
