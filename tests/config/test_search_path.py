"""The current folder is not imported from, unless namd itself lies there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from namd.config import search_path
from namd.config.search_path import (
    ROOT,
    import_folders,
    inherited_python_path,
    leave_current_folder,
)


@pytest.fixture
def trap(tmp_path):
    """A folder whose modules have the names of Python's own."""
    for name in ("profile", "statistics", "logging"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported from here')\n")
    return tmp_path


def namd(folder, *words, **variables):
    """Run `python -m namd` in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "namd", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_command_imports_nothing_from_the_folder_it_is_given_in(trap):
    done = namd(trap, "presets")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny" in done.stdout


def test_an_empty_entry_of_pythonpath_is_no_folder(trap):
    done = namd(trap, "methods", PYTHONPATH=f"{ROOT}:")
    assert (done.returncode, done.stderr) == (0, "")


def test_another_checkout_that_is_called_as_such_is_what_runs(tmp_path):
    (tmp_path / "namd").mkdir()
    (tmp_path / "namd" / "__init__.py").write_text("raise SystemExit('the other one')\n")
    done = namd(tmp_path, "presets")
    assert done.stderr == "the other one\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("entry", ["", ".", None])
def test_the_current_folder_leaves_the_search_path(here, monkeypatch, entry):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [here if entry is None else entry, "/other"])
    leave_current_folder()
    assert sys.path == ["/other"]


def test_what_pythonpath_names_in_full_stays(here, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", here)
    monkeypatch.setattr(sys, "path", [here, "/other"])
    leave_current_folder()
    assert sys.path == [here, "/other"]


def test_the_folder_of_namd_stays(here, monkeypatch):
    monkeypatch.setattr(search_path, "ROOT", Path(here))
    monkeypatch.setattr(sys, "path", [here, "/other"])
    leave_current_folder()
    assert sys.path == [here, "/other"]


def test_children_get_absolute_entries_without_the_current_folder(here, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/a", ".", "tools", ""]))
    assert inherited_python_path() == os.pathsep.join(["/a", f"{here}/tools"])
    monkeypatch.setattr(search_path, "ROOT", Path(here))
    assert inherited_python_path().startswith(here)
    monkeypatch.delenv("PYTHONPATH")
    assert inherited_python_path() == ""


def test_workers_import_from_the_scripts_folder_and_from_namds(tmp_path, monkeypatch):
    script = tmp_path / "study.py"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert import_folders() == [str(ROOT)]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert import_folders() == [str(tmp_path), str(ROOT)]
    # As with `python -c` in that folder.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert import_folders() == [str(ROOT)]
