"""The Dockerfile: read by hadolint; pinned, without root and without secrets."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HADOLINT = Path(sys.executable).with_name("hadolint")
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)\s*=", re.IGNORECASE)


@pytest.fixture
def dockerfile(cluster_folder):
    return cluster_folder / "Dockerfile"


def hadolint(path):
    return subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)


def instructions(text):
    """Return (word, rest) of each instruction, continued lines joined."""
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


def test_hadolint_finds_nothing(dockerfile):
    done = hadolint(dockerfile)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path):
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python:latest\nRUN cd /x && pip install y\nADD z z\n")
    assert hadolint(wrong).returncode == 1


def unpinned(text):
    bases = [rest.split()[0] for word, rest in instructions(text) if word == "FROM"]
    return [base for base in bases if not re.search(r":\d+\.\d+\.\d+|@sha256:", base)]


def test_every_base_is_pinned(dockerfile):
    assert unpinned(dockerfile.read_text(encoding="utf-8")) == []
    assert unpinned("FROM python:3\n") == ["python:3"]


def test_dependencies_are_the_locked_ones_with_their_hashes(dockerfile):
    runs = [rest for word, rest in instructions(dockerfile.read_text("utf-8")) if word == "RUN"]
    (locked,) = [run for run in runs if "requirements.lock" in run]
    assert "--require-hashes" in locked
    (project,) = [run for run in runs if "/opt/namd" in run]
    assert "--no-deps" in project


def test_it_runs_as_nobody_in_particular_and_knows_no_secret(dockerfile):
    told = instructions(dockerfile.read_text(encoding="utf-8"))
    (user,) = [rest for word, rest in told if word == "USER"]
    assert user == "1000:1000"
    assert not [rest for word, rest in told if word in ("ENV", "ARG") and SECRET.search(rest)]
    assert SECRET.search("WANDB_API_KEY=x")


def test_what_may_hold_people_or_history_is_not_copied(cluster_folder):
    ignored = (cluster_folder / "Dockerfile.dockerignore").read_text("utf-8").split()
    assert {".git", ".venv", "data", "store", "stores", "runs", "wandb"} <= set(ignored)
