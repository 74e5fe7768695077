"""Starting a cluster here: a start that times out leaves nothing to slow the next one."""

import subprocess
import sys

import psutil
import pytest

from namd.config.errors import InputError
from namd.distributed import session

TIMED_OUT = "The current node timed out during startup. This could happen"


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])


@pytest.fixture
def started(monkeypatch):
    """A Ray whose every start leaves a process and times out."""
    processes: list[subprocess.Popen[bytes]] = []

    def never(**_: object) -> None:
        processes.append(sleeper())
        raise Exception(TIMED_OUT)

    monkeypatch.setattr(session.ray, "init", never)
    monkeypatch.setattr(session.ray, "shutdown", lambda: None)
    yield processes
    for process in processes:
        process.kill()


def test_what_a_start_that_timed_out_left_is_ended_and_others_are_not(started):
    other = sleeper()
    try:
        with pytest.raises(InputError, match="too busy"):
            session._start_here()
        assert len(started) == session._START_TRIES
        assert not any(psutil.pid_exists(process.pid) for process in started)
        assert other.poll() is None
    finally:
        other.kill()


def test_another_failure_is_nobodys_business_here(monkeypatch):
    def broken(**_: object) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr(session.ray, "init", broken)
    with pytest.raises(RuntimeError, match="no space left"):
        session._start_here()
