"""The same ledger on S3, against a server of our own on this machine."""

import threading

import pytest

from namd.ledger.lease import LeaseLost, StudyBusy
from namd.ledger.reading import list_records, read_events
from namd.ledger.schema import Identity
from namd.ledger.writing import open_writer
from namd.storage.base import Storage, probe
from namd.storage.lease import LeaseTiming
from namd.storage.objects import ObjectStorage
from namd.storage.opening import open_storage

# Importing the server alone takes several seconds.
pytestmark = pytest.mark.slow

QUICK = LeaseTiming(ttl_s=1.2, heartbeat_s=0.2)
STUDY = "clouded"


@pytest.fixture
def storage(s3_server, request) -> Storage:
    client = {"endpoint_url": s3_server, "region_name": "us-east-1"}
    options = {"key": "test", "secret": "test", "client_kwargs": client}
    opened = open_storage("s3://bucket/" + request.node.name.replace("[", "-"), **options)
    assert isinstance(opened, ObjectStorage)
    opened._filesystem.call_s3("create_bucket", Bucket="bucket")
    return opened


def identity(number: int) -> Identity:
    return Identity(f"trial{number}", 1, "interrupted")


def test_the_server_refuses_to_overwrite(storage):
    probe(storage)


def test_records_are_appended_sealed_and_read_back(storage):
    with open_writer(storage, STUDY, timing=QUICK, segment_records=4) as writer:
        for number in range(6):
            writer.append(identity(number), {"n": number})
    listing = list_records(storage, STUDY)
    assert (len(listing.spans), len(listing.loose)) == (1, 2)
    assert [e.identity for e in read_events(storage, STUDY)] == [identity(n) for n in range(6)]


def test_a_late_writer_and_a_second_one_are_refused(storage):
    late = open_writer(storage, STUDY, timing=QUICK)
    late.append(identity(0))
    with pytest.raises(StudyBusy):
        open_writer(storage, STUDY, timing=QUICK)
    late._lease.stop()
    with open_writer(storage, STUDY, timing=QUICK) as successor:
        with pytest.raises(LeaseLost):
            late.append(identity(1))
        successor.append(identity(1))
    found = [e.identity for e in read_events(storage, STUDY) if e.identity.kind != "fenced"]
    assert found == [identity(0), identity(1)]


def test_one_of_many_racing_creators_wins(storage):
    won: list[int] = []
    gate = threading.Barrier(8)

    def create(number: int) -> None:
        gate.wait()
        if storage.create("race", f"{number}".encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [storage.read("race")] == [f"{n}".encode() for n in won]


def test_a_dead_server_is_an_error_and_the_record_can_be_repeated(storage, monkeypatch):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        with monkeypatch.context() as dead:
            dead.setattr(storage._filesystem, "pipe_file", _unreachable)
            with pytest.raises(OSError, match="unreachable"):
                writer.append(identity(0))
        assert writer.append(identity(0))
    assert [e.identity for e in read_events(storage, STUDY)] == [identity(0)]


def _unreachable(*args, **kwargs):
    raise OSError("endpoint is unreachable")
