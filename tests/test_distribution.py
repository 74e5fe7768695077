"""A wheel and an sdist hold the packages, and nothing that lies beside their sources."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="module")
def hook():
    """The wheel's build hook, without the build backend that runs it."""
    base = "hatchling.builders.hooks.plugin.interface"
    names = [base.rsplit(".", count)[0] for count in range(1, 5)]
    stubs = {name: ModuleType(name) for name in (*names, base)}
    stubs[base].BuildHookInterface = object
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name, stub in stubs.items():
            patch.setitem(sys.modules, name, stub)
        spec.loader.exec_module(module)
    return module


def imported(source: str) -> set[str]:
    """Return the modules that a source imports, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def test_a_wheel_has_no_top_level_package_but_namd(build, included):
    excluded = pathspec.GitIgnoreSpec.from_lines(build["targets"]["wheel"]["exclude"]).match_file
    for name in ("experiments/__init__.py", "analysis/study_table.py", "hatch_build.py"):
        assert included(name)
        assert excluded(name)
    for name in ("namd/__init__.py", "namd/cli/demo.yaml"):
        assert included(name)
        assert not excluded(name)
    assert "custom" in build["targets"]["wheel"]["hooks"]


def test_what_a_wheel_holds_imports_analysis_from_within_namd(hook):
    files = hook.wheel_files(REPOSITORY)
    inside = {name for name in files if name.startswith("namd/analysis/")}
    assert len(inside) == len(list((REPOSITORY / "analysis").glob("*.py")))
    assert len(files) > len(inside)
    for path in (REPOSITORY / "namd").rglob("*.py"):
        name = path.relative_to(REPOSITORY).as_posix()
        files.setdefault(name, path.read_text(encoding="utf-8"))
    for name, source in files.items():
        for module in imported(source):
            assert module.partition(".")[0] not in ("analysis", "experiments", "tests"), name
            if module.startswith("namd.analysis."):
                assert f"{module.replace('.', '/')}.py" in inside, name


def test_only_imports_of_analysis_are_reworded(hook):
    source = "from analysis.a import b\n    import analysis.c\nfrom analysis import d\n"
    assert imported(hook.moved(source.replace("    ", ""))) == {
        "namd.analysis.a", "namd.analysis.c", "namd.analysis",
    }  # fmt: skip
    for other in ("from analysis_b import c\n", "import a.analysis\n", "# an analysis of a b\n"):
        assert hook.moved(other) == other


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
