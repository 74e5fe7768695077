"""The Dockerfile: read by hadolint; pinned, without root and without secrets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml
from docker.utils.build import PatternMatcher

from namd.distributed.upload import is_source
from tests.distributed.planted import ASKED_FOR, DISGUISED, NEVER

HADOLINT = Path(sys.executable).with_name("hadolint")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
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


def bases(text):
    """The images that a Dockerfile builds on, its arguments filled in."""
    found = instructions(text)
    values = dict(rest.split("=", 1) for word, rest in found if word == "ARG" and "=" in rest)
    named = [rest.split()[0] for word, rest in found if word == "FROM"]
    return [re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], name) for name in named]


def unpinned(text):
    return [base for base in bases(text) if not re.search(r":\d+\.\d+\.\d+|@sha256:", base)]


def test_every_base_is_of_one_version(dockerfile):
    text = dockerfile.read_text(encoding="utf-8")
    assert len(bases(text)) == 2
    assert unpinned(text) == []
    assert unpinned("FROM python:3\n") == ["python:3"]


def guard(text):
    """The command by which a build refuses bases that have no digest."""
    (command,) = [rest for word, rest in instructions(text) if word == "RUN" and "UNPINNED" in rest]
    return command


@pytest.mark.parametrize(
    ("base", "unpinned", "status"),
    [
        ("python:3.11.14-bookworm", "no", 1),
        ("python:3.11.14-bookworm", "yes", 0),
        (f"python:3.11.14-bookworm@sha256:{'0' * 64}", "no", 0),
    ],
)
def test_a_build_refuses_a_base_without_a_digest(dockerfile, base, unpinned, status):
    environment = {"BUILD_BASE": base, "RUNTIME_BASE": base, "UNPINNED": unpinned}
    done = subprocess.run(
        ["sh", "-c", guard(dockerfile.read_text(encoding="utf-8"))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert ("cluster/image.sh" in done.stderr) == bool(status)


def floating(text):
    """Images of a cluster file that neither have a digest nor are the example's, which is none."""
    named = re.findall(r"^ *(?:- )?image: (?:&\w+ )?([^*\s]+)", text, re.MULTILINE)
    assert named
    return [
        name
        for name in named
        if not re.search(r"@sha256:[0-9a-f]{64}$", name)
        and not name.startswith("registry.example/")
    ]


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml", "ray-up.yaml"])
def test_every_image_has_a_digest_or_is_still_to_be_named(cluster_folder, name):
    text = (cluster_folder / name).read_text(encoding="utf-8")
    assert floating(text) == []
    named = text.replace("registry.example/namd:0.1.0", "registry.hospital/namd:0.1.0")
    assert floating(named) == ["registry.hospital/namd:0.1.0"]


DOCKER = """#!/bin/bash
echo "docker $*" >> "$CALLS"
case "$*" in
  *inspect*) echo "${LOOKED_UP-BASE}" ;;
  *build*--push*)
    while [[ $1 != --metadata-file ]]; do shift; done
    printf '{\n "containerimage.digest": "PUSHED"\n}\n' > "$2" ;;
esac
"""
BASE, PUSHED = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.fixture
def builder(cluster_folder, tmp_path):
    """Runs the script on a copy, with a Docker made of a few lines; returns (status, calls)."""
    shutil.copytree(cluster_folder, tmp_path / "cluster")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER.replace("BASE", BASE).replace("PUSHED", PUSHED))
    (tmp_path / "bin" / "docker").chmod(0o755)
    calls = tmp_path / "calls"

    def build(*words, **more):
        calls.write_text("")
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
        done = subprocess.run(
            ["bash", str(tmp_path / "cluster" / "image.sh"), *words],
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, calls.read_text().splitlines()

    return tmp_path / "cluster", build


def test_the_script_pins_bases_and_image_and_looks_a_base_up_once(builder):
    folder, build = builder
    done, calls = build("registry.hospital/namd:0.1.0")
    assert done.returncode == 0, done.stderr
    pushed = f"registry.hospital/namd:0.1.0@{PUSHED}"
    assert done.stdout.strip() == pushed
    assert len([line for line in calls if "inspect" in line]) == 2
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    assert [base.partition("@")[2] for base in bases(text)] == [BASE, BASE]
    assert hadolint(folder / "Dockerfile").returncode == 0
    for name in ("raycluster.yaml", "rayjob.yaml", "ray-up.yaml"):
        written = (folder / name).read_text(encoding="utf-8")
        assert pushed in written
        assert "registry.example" not in written
        assert floating(written) == []
        yaml.safe_load(written)
    again, calls = build("registry.hospital/namd:0.2.0")
    assert again.returncode == 0
    assert not [line for line in calls if "inspect" in line]
    assert pushed not in (folder / "rayjob.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("answer", ["", "latest", "sha256:0"])
def test_without_a_digest_from_the_registry_nothing_is_changed(builder, cluster_folder, answer):
    folder, build = builder
    done, calls = build("registry.hospital/namd:0.1.0", LOOKED_UP=answer)
    assert done.returncode == 1
    assert "named no digest" in done.stderr
    assert not [line for line in calls if "--push" in line]
    for path in folder.iterdir():
        assert path.read_bytes() == (cluster_folder / path.name).read_bytes()


def test_shellcheck_finds_nothing(cluster_folder):
    done = subprocess.run(
        [SHELLCHECK, cluster_folder / "image.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_dependencies_are_the_locked_ones_with_their_hashes(dockerfile):
    runs = [rest for word, rest in instructions(dockerfile.read_text("utf-8")) if word == "RUN"]
    (locked,) = [run for run in runs if "requirements.lock" in run]
    assert "--require-hashes" in locked
    (project,) = [run for run in runs if "/opt/namd" in run]
    assert "--no-deps" in project


def test_it_runs_as_nobody_in_particular_and_knows_no_secret(dockerfile):
    text = instructions(dockerfile.read_text(encoding="utf-8"))
    (user,) = [rest for word, rest in text if word == "USER"]
    assert user == "1000:1000"
    assert not [rest for word, rest in text if word in ("ENV", "ARG") and SECRET.search(rest)]
    assert SECRET.search("WANDB_API_KEY=x")


def copied(cluster_folder, root):
    """The files that a build would see, as BuildKit reads the ignore file.

    It looks into every folder if a `!` line has a `*` before its end, as tonistiigi/fsutil says;
    Docker's Python client has the same patterns and skips such folders.
    """
    lines = (cluster_folder / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    matcher = PatternMatcher(patterns)
    tops = {line[1:].partition("/")[0] for line in patterns if line.startswith("!")}
    paths = [p for top in tops for p in ((root / top), *(root / top).rglob("*")) if p.is_file()]
    names = {path.relative_to(root).as_posix() for path in paths}
    return {name for name in names if not matcher.matches(name)}


def test_the_image_holds_what_a_node_runs_and_nothing_that_lies_beside_it(cluster_folder, tmp_path):
    needed = [
        *("LICENSE", "README.md", "pyproject.toml", "requirements.lock", "namd/__init__.py"),
        *("namd/data/schema.py", "namd/methods/namd/presets/tiny.yaml", "analysis/study_table.py"),
        *("namd/methods/not_yet/method.py", "namd/methods/not_yet/presets/tiny.yaml"),
        *("experiments/benchmarks/sampling.py", "namd/cli/demo.yaml"),
    ]
    beside = {**NEVER, **DISGUISED, **ASKED_FOR}
    for folder in ("", "namd", "namd/data", "namd/methods/not_yet", "analysis", "experiments", "data"):
        for name in beside:
            if folder == "" or not name.endswith(".py"):
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(beside[name])
    for name in needed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert copied(cluster_folder, tmp_path) == set(needed)


def test_every_source_is_copied(cluster_folder):
    root = cluster_folder.parent
    found = copied(cluster_folder, root)
    places = [p.relative_to(root) for n in ("namd", "analysis") for p in (root / n).rglob("*")]
    sources = {str(path) for path in places if is_source(PurePosixPath(path))}
    assert len(sources) > 200
    assert sources <= found
    assert not [name for name in found if "__pycache__" in name]


def test_each_copied_place_is_named_and_passes_the_ignore_file(dockerfile, cluster_folder):
    """An ignore file that is not read must not let a whole checkout in."""
    text = instructions(dockerfile.read_text(encoding="utf-8"))
    sources = {
        word
        for name, rest in text
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert "." not in sources
    found = copied(cluster_folder, cluster_folder.parent)
    assert {name.partition("/")[0] for name in found} == sources
