"""Fixtures that every room's tests may ask for."""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.severable_line import Line

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT crops and tables, or a skip that says what is missing."""
    folder = Path(os.environ.get("NAMD_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "lidc_nodules2d" / "nodules.npz").is_file():
        pytest.skip(f"needs real nodule crops: no lidc_nodules2d/nodules.npz under {folder}")
    return folder


@pytest.fixture(params=[errno.EEXIST, errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def lost_replies(request, monkeypatch):
    """Once called, links and renames succeed, and the reply says that they did not."""
    link, rename = os.link, Path.replace

    def linked(source, target):
        link(source, target)
        raise OSError(request.param, os.strerror(request.param))

    def renamed(source, target):
        rename(source, target)
        raise OSError(request.param, os.strerror(request.param))

    def both():
        monkeypatch.setattr(os, "link", linked)
        monkeypatch.setattr(Path, "replace", renamed)

    return both


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory) -> Iterator[Path]:
    """One local Ray cluster of four nominal CPUs for every test marked `ray`.

    It is started as for a study, in a folder whose modules must never be imported: yields that.
    """
    from namd.distributed.local_ray import short_folder
    from namd.distributed.ray_files import ray_files
    from namd.distributed.session import local_cluster

    trap = tmp_path_factory.mktemp("trap")
    (trap / "profile.py").write_text("raise RuntimeError('imported from the current folder')\n")
    (trap / "namd").mkdir()
    (trap / "namd" / "__init__.py").write_text("raise RuntimeError('another checkout')\n")
    with (
        pytest.MonkeyPatch.context() as patch,
        ray_files(short_folder()) as files,
        ExitStack() as stack,
    ):
        # Ray's workers import the toy methods that lie beside the tests. An empty entry, as in
        # `PYTHONPATH=$PYTHONPATH:...` without one before, is the current folder.
        toys = [str(REPOSITORY / "tests" / "distributed"), str(REPOSITORY)]
        patch.setenv("PYTHONPATH", os.pathsep.join(["", *toys, os.environ.get("PYTHONPATH", "")]))
        with contextlib.chdir(trap):
            stack.enter_context(local_cluster(files.temporary, 4, 1000, 200_000_000))
        yield trap


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 of this machine, or a skip that says what is missing."""
    moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3_line(s3_server) -> Iterator[Line]:
    """A line to the S3 of this machine that a test may cut, stop, or let lose answers."""
    line = Line(int(s3_server.rpartition(":")[2]))
    yield line
    line.close()


@pytest.fixture
def s3_url(s3_line, tmp_path, monkeypatch, request) -> str:
    """An empty prefix of an S3 behind `s3_line`, reached as the AWS tools are configured."""
    from namd.storage.objects import CACHE_VARIABLE, open_object_storage

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_line.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "copies"))
    name = request.node.name.replace("[", "-").replace("]", "")
    place = f"s3://bucket/outage-{name}"
    open_object_storage(place)._filesystem.call_s3("create_bucket", Bucket="bucket")
    return place
