"""Work outlives the terminal or pipe that it writes to; what only shows something ends with it."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from namd.cli.main import UNREAD
from namd.pipeline.store import open_store

SCRIPT = Path(__file__).with_name("toy_command.py")
PATIENCE_S = 60.0


def command(*words, **options):
    environment = {**os.environ, "TERM": "xterm"}
    words = [sys.executable, str(SCRIPT), *map(str, words)]
    # Not ignored, whoever runs the tests under nohup.
    options.setdefault("preexec_fn", partial(signal.signal, signal.SIGHUP, signal.SIG_DFL))
    return subprocess.Popen(words, env=environment, **options)


def is_published(store, stage):
    return any(entry.stage == stage for entry in open_store(str(store)).entries())


def await_training(store):
    """Wait until a toy's training has begun, of which it has a second left."""
    deadline = time.monotonic() + PATIENCE_S
    while not list(store.glob("train/*/checkpoints")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def on_a_terminal(*words, handler=signal.SIG_DFL):
    """Start a command as the leader of a terminal's session; return it and the terminal."""
    main, side = pty.openpty()

    def take_terminal():
        import fcntl
        import termios

        signal.signal(signal.SIGHUP, handler)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = command(
        *words,
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(side)
    return process, main


def read_all(terminal):
    text = b""
    while True:
        try:
            text += os.read(terminal, 65536)
        except OSError:
            return text.decode()


@pytest.mark.serial
def test_a_pipe_whose_reader_has_gone_ends_no_run(tmp_path):
    read, write = os.pipe()
    process = command("run", tmp_path, stdout=write, stderr=write)
    os.close(write)
    os.close(read)
    assert process.wait(PATIENCE_S) == 0
    assert is_published(tmp_path, "scores-test")


@pytest.mark.serial
def test_a_terminal_that_is_closed_ends_no_run_that_was_asked_to_survive(tmp_path):
    process, terminal = on_a_terminal("run", tmp_path, handler=signal.SIG_IGN)
    await_training(tmp_path)
    os.close(terminal)
    assert process.wait(PATIENCE_S) == 0
    assert is_published(tmp_path, "scores-test")


@pytest.mark.serial
def test_a_terminal_that_is_closed_stops_a_run_that_can_be_continued(tmp_path):
    process, terminal = on_a_terminal("run", tmp_path)
    await_training(tmp_path)
    os.close(terminal)
    assert process.wait(PATIENCE_S) == 143
    assert not is_published(tmp_path, "scores-test")
    assert command("run", tmp_path, "--pause", "0.1", stderr=subprocess.DEVNULL).wait() == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, "interrupted by Ctrl-C"),
        (signal.SIGHUP, "interrupted by SIGHUP (a closed terminal)"),
        (signal.SIGTERM, "stopped by SIGTERM"),
    ],
)
def test_a_run_that_was_stopped_names_the_signal(tmp_path, number, words):
    process = command("run", tmp_path, stderr=subprocess.PIPE, text=True)
    await_training(tmp_path)
    process.send_signal(number)
    printed = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 143
    assert f"{words}; the same command continues" in printed


def test_a_stopped_run_answers_in_json_too(tmp_path):
    process = command("run", tmp_path, "--json", stdout=subprocess.PIPE, text=True)
    await_training(tmp_path)
    process.send_signal(signal.SIGHUP)
    printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 143
    answer = {"error": "interrupted by SIGHUP (a closed terminal)", "exit": 143}
    assert json.loads(printed.splitlines()[-1]) == answer


def test_ctrl_c_on_a_terminal_stops_a_run(tmp_path):
    process, terminal = on_a_terminal("run", tmp_path)
    await_training(tmp_path)
    os.write(terminal, b"\x03")
    printed = read_all(terminal)
    assert process.wait(PATIENCE_S) == 143
    assert "Ctrl-C again stops at once" in printed


def test_what_only_shows_something_ends_when_nobody_reads_it(tmp_path):
    end = tmp_path / "end"
    process = command("methods", "--then", end, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_S) == UNREAD
    assert not end.exists()


def test_what_is_read_to_the_end_ends_well(tmp_path):
    end = tmp_path / "end"
    process = command("methods", "--then", end, stdout=subprocess.PIPE)
    assert process.stdout.read().splitlines()[-1] == b"line 19999"
    assert process.wait(PATIENCE_S) == 0
    assert end.exists()


def test_a_result_that_cannot_be_written_is_one_line(tmp_path):
    with Path("/dev/full").open("w") as full:
        process = command("methods", "--then", tmp_path / "a", stdout=full, stderr=subprocess.PIPE)
        printed = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1
    assert printed == b"error: stdout cannot be written (No space left on device)\n"


@pytest.mark.serial
def test_progress_that_cannot_be_written_ends_no_run(tmp_path):
    with Path("/dev/full").open("w") as full:
        process = command("run", tmp_path, stdout=subprocess.PIPE, stderr=full)
        printed = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0
    assert printed.startswith(b"run ")
