"""A user without a name, a home or a writable one is no reason to fail."""

import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from namd.cli import methods
from namd.cli.main import main
from namd.config.account import complete_account
from namd.models.weights import describe

NAMES = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "MPLCONFIGDIR", "WANDB_CACHE_DIR")


@pytest.fixture
def stranger(monkeypatch):
    """A user of whom passwd knows nothing."""

    def unknown(_uid):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in NAMES:
        # Set first, so that what is set meanwhile is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("stranger")
def test_a_user_without_an_entry_gets_a_name_and_a_private_home():
    with pytest.raises(RuntimeError):
        Path.home()
    complete_account()
    home = Path.home()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert os.environ["LOGNAME"] == f"uid{os.getuid()}"
    assert "MPLCONFIGDIR" not in os.environ


@pytest.mark.usefixtures("stranger")
def test_what_is_set_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "somebody")
    complete_account()
    assert Path.home() == tmp_path
    assert not {"LOGNAME", "MPLCONFIGDIR", "WANDB_CACHE_DIR"} & set(os.environ)


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("home", ["/dev/null", "/dev/null/none"])
def test_caches_go_elsewhere_if_the_home_cannot_be_written(monkeypatch, tmp_path, home):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    complete_account()
    assert str(Path.home()) == home
    assert Path(os.environ["MPLCONFIGDIR"]).is_dir()
    assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without an entry")
@pytest.mark.parametrize("variables", [{}, {"HOME": "/dev/null"}])
def test_a_command_that_looks_for_weights_runs_as_anybody(variables):
    # May read all files, such as an interpreter under /root, and write none.
    become = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    words = [*become, sys.executable, "-m", "namd", "weights", "--preset", "tiny"]
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_home_that_may_not_be_entered_holds_no_weights(monkeypatch, tmp_path):
    def forbidden(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = [status.found for status in describe()]
    monkeypatch.setattr(Path, "stat", forbidden)
    assert [status.found for status in describe()] == before == [False] * len(before)
    assert all("cannot be read" not in status.problem for status in describe())


def test_a_file_that_may_not_be_read_is_one_line(monkeypatch, capsys):
    def forbidden(_arguments):
        raise PermissionError(13, "Permission denied", "/somewhere/else")

    monkeypatch.setattr(methods, "list_methods", forbidden)
    assert main(["methods", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: /somewhere/else: Permission denied\n"
    assert json.loads(captured.out)["exit"] == 2
