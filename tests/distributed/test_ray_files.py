"""What Ray says goes to a file, which stays only if somebody may want to read it."""

import logging
import sys

import pytest

from namd.config.errors import StageError
from namd.distributed.ray_files import ray_files

LOUD = logging.getLogger("ray.tune.execution.tune_controller")


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def say_raylet(line: str) -> None:
    """Print as Ray prints what a raylet reports of a worker that died."""
    from ray._private.worker import print_to_stdstream

    print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)


def test_a_traceback_of_tunes_goes_to_the_log_and_not_to_the_terminal(own, capfd):
    with ray_files(own) as files:
        LOUD.error("Trial task failed\nTraceback (most recent call last):")
        say_raylet("A worker died")
        sys.stderr.write("a line of ours\n")
        assert "Trial task failed" in files.log.read_text()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "a line of ours\n")


def test_outside_a_session_ray_speaks_as_before(own, capfd, monkeypatch):
    # The session's cluster is kept quiet for as long as it lives.
    monkeypatch.setattr("ray._private.worker._worker_logs_enabled", True)
    with ray_files(own):
        pass
    say_raylet("Another one died")
    assert "Another one died" in capfd.readouterr().out


@pytest.mark.parametrize("kept", [False, True])
def test_the_folder_goes_unless_it_is_kept(own, kept):
    with ray_files(own) as files:
        files.kept = kept
    assert own.exists() == kept


@pytest.mark.parametrize(("error", "kept"), [(StageError("a line"), False), (KeyError("a"), True)])
def test_it_stays_after_an_error_that_nobody_expects(own, error, kept):
    with pytest.raises(type(error)), ray_files(own) as files:
        raise error
    assert files.folder.exists() == kept
