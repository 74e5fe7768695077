"""A job submitted to a cluster for real, with a token: sent, run, followed, ended with its code."""

import importlib.util
import shutil
import tempfile
from pathlib import Path, PurePosixPath

import pytest

from namd.config.errors import InputError
from namd.distributed.jobs import Request, connect, follow, submit
from namd.distributed.upload import collect, write_archive

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def smoke():
    """The script that starts two raylets here, as a module."""
    specification = importlib.util.spec_from_file_location("smoke", PROJECT / "cluster/smoke.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def address(smoke, monkeypatch):
    """A cluster of two raylets, its token in the environment; no process of it stays."""
    # A folder's name enters those of sockets: pytest's is too long.
    folder = Path(tempfile.mkdtemp(prefix="njob-", dir="/tmp"))
    environment = smoke.marked_environment(folder)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, environment[name])
    try:
        with smoke.cluster(folder, environment) as found:
            yield found
    finally:
        left = smoke.end_processes(environment[smoke.MARK])
        shutil.rmtree(folder, ignore_errors=True)
        assert left == []


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_runs_what_was_sent_and_ends_with_its_own_code(address, tmp_path, monkeypatch):
    """The study file is not among what is sent: namd's own refusal must come back."""
    package = tmp_path / "p.zip"
    write_archive(collect(PROJECT), package)
    request = Request("absent", PurePosixPath("experiments/absent.yaml"), "f", store="/nowhere")
    client = connect(address)
    seen: list[str] = []
    for attempt in (1, 2):
        decision = submit(client, request, package, address=address)
        assert decision.submission_id == f"namd-absent-{attempt}"
        assert decision.found is None
        found = follow(client, decision.submission_id, seen.append, address=address)
        assert found.outcome == 2
    assert "".join(seen).count("experiments/absent.yaml: no such study file") == 2
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(InputError, match="refuses this token"):
        connect(address)
