"""A Ray that is started here is this user's alone, and imports what the driver imports."""

import os
import stat
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from namd.config.errors import InputError
from namd.config.search_path import ROOT
from namd.distributed import local_ray, source_probe
from namd.distributed.local_ray import short_folder
from namd.distributed.source_identity import SourceIdentity, own_source
from namd.distributed.source_probe import require_same_source_everywhere


@pytest.fixture
def temporary(monkeypatch):
    """Sets TMPDIR, and nothing else that names a place."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def use(place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(place))

    return use


def long_folder(tmp_path: Path, length: int = 95) -> Path:
    return Path(f"{tmp_path}/".ljust(length, "x"))


def test_the_longest_socket_fits_and_only_its_user_may_enter(temporary):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        temporary(Path(place))
        folder = short_folder()
        assert folder.parent == Path(place)
        longest = f"{folder}/{local_ray.RAY_FOLDER}{local_ray._LONGEST_SOCKET}"
        assert len(longest) <= local_ray.SOCKET_PATH
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_long_tmpdir_is_left_for_a_shorter_place(temporary, tmp_path):
    temporary(long_folder(tmp_path))
    folder = short_folder()
    try:
        assert str(folder.parent) in local_ray._ELSEWHERE
    finally:
        folder.rmdir()


def test_a_ray_tmpdir_that_cannot_serve_is_one_line(monkeypatch, tmp_path):
    place = long_folder(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    with pytest.raises(InputError, match=f"{place} has more than .*RAY_TMPDIR"):
        short_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    with pytest.raises(InputError, match="/proc/none: No such file"):
        short_folder()


def test_nothing_of_it_stays_in_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/another/cluster")
    before = dict(os.environ)
    with local_ray.private_ray():
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert dict(os.environ) == before


@pytest.mark.ray
def test_it_listens_on_loopback_alone(ray_cluster):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert "gcs_server" in {name for name, _ in listening}
    assert {address for _, address in listening} == {"127.0.0.1"}


@pytest.mark.ray
def test_its_workers_do_not_import_from_the_folder_one_stands_in(ray_cluster):
    import ray

    @ray.remote(num_cpus=0)
    def look():
        import profile  # what torch imports

        import namd

        return str(Path.cwd()), sys.path, profile.__file__, namd.__file__

    folder, path, profiler, package = ray.get(look.remote())
    assert folder == str(ray_cluster)
    assert folder not in path
    assert "" not in path
    assert not profiler.startswith(folder)
    assert package == str(ROOT / "namd" / "__init__.py")


@pytest.mark.ray
def test_a_cluster_with_the_drivers_source_is_used_and_one_with_another_is_not(
    ray_cluster, monkeypatch
):
    require_same_source_everywhere()
    other = SourceIdentity("9.9", "/opt/other/namd/__init__.py", "f" * 64, "e" * 64)
    monkeypatch.setattr(source_probe, "own_source", lambda: other)
    own = own_source()
    with pytest.raises(InputError) as refused:
        require_same_source_everywhere()
    line = str(refused.value)
    assert f"namd {own.version} of {own.file} (source {own.files_digest[:12]})" in line
    assert "namd 9.9 of /opt/other/namd/__init__.py (source ffffffffffff)" in line
