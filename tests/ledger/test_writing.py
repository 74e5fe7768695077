"""One writer, one record per event, in order."""

import gzip
import json
from pathlib import Path

import pytest

from namd.config.errors import InputError
from namd.ledger.lease import LeaseLost, StudyBusy, acquire, live_holder
from namd.ledger.reading import LedgerDamaged, list_records, read_events
from namd.ledger.schema import Event, Identity, Place, Span, study_folder, trial_id
from namd.ledger.writing import Writer, open_writer
from namd.storage.base import Storage, probe
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.opening import open_storage

QUICK = LeaseTiming(ttl_s=0.4, heartbeat_s=0.05)
STUDY = "question"


def identity(number: int, transition: str = "interrupted") -> Identity:
    return Identity(f"trial{number}", 1, transition)


def recorded(storage: Storage) -> list[Identity]:
    return [e.identity for e in read_events(storage, STUDY) if e.identity.kind != "fenced"]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_what_is_appended_is_read_back_in_order(storage):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        for number in range(5):
            assert writer.append(identity(number), {"values": {"auroc": number / 10}})
    events = list(read_events(storage, STUDY))
    assert [e.identity for e in events] == [identity(n) for n in range(5)]
    assert [e.place for e in events] == [Place(1, n + 1) for n in range(5)]
    assert events[3].body == {"values": {"auroc": 0.3}}


def test_a_second_record_of_one_identity_is_not_written_even_after_reopening(storage):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        assert writer.append(identity(1), {"values": 1})
        assert not writer.append(identity(1), {"values": 2})
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        assert writer.has(identity(1))
        assert not writer.append(identity(1), {"values": 3})
        assert writer.append(identity(2))
    assert recorded(storage) == [identity(1), identity(2)]


def test_sealing_keeps_every_record_and_lets_go_of_the_loose_ones(storage):
    with open_writer(storage, STUDY, timing=QUICK, segment_records=4) as writer:
        for number in range(10):
            writer.append(identity(number))
    listing = list_records(storage, STUDY)
    assert listing.spans == (Span(1, 1, 4), Span(1, 5, 8))
    assert listing.loose == (Place(1, 9), Place(1, 10))
    assert recorded(storage) == [identity(n) for n in range(10)]


def test_reading_goes_on_after_a_place(storage):
    with open_writer(storage, STUDY, timing=QUICK, segment_records=4) as writer:
        for number in range(10):
            writer.append(identity(number))
    for after in range(11):
        rest = [e.place.seq for e in read_events(storage, STUDY, Place(1, after))]
        assert rest == list(range(after + 1, 11))


def test_a_lost_record_is_noticed(storage, tmp_path):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        for number in range(3):
            writer.append(identity(number))
    (tmp_path / "studies" / STUDY / "events" / "00000001-00000002.json").unlink()
    with pytest.raises(LedgerDamaged, match="record 1-2 is missing"):
        list(read_events(storage, STUDY))


def test_overlapping_segments_and_loose_records_double_nothing(storage, tmp_path):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        for number in range(6):
            writer.append(identity(number))
    events = list(read_events(storage, STUDY))
    folder = tmp_path / "studies" / STUDY / "segments"
    folder.mkdir()
    for first, last in ((1, 3), (2, 5)):
        data = gzip.compress(b"".join(e.encode() for e in events[first - 1 : last]))
        (folder / Span(1, first, last).name).write_bytes(data)
    assert recorded(storage) == [identity(n) for n in range(6)]


def test_a_second_live_writer_is_refused_and_a_released_study_is_not(storage):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        writer.append(identity(1))
        assert live_holder(storage, STUDY) is not None
        with pytest.raises(StudyBusy, match="is running it"):
            open_writer(storage, STUDY, timing=QUICK)
    assert live_holder(storage, STUDY) is None
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        assert writer.epoch == 2


def test_two_studies_do_not_disturb_each_other(storage):
    with (
        open_writer(storage, STUDY, timing=QUICK) as one,
        open_writer(storage, "other", timing=QUICK) as two,
    ):
        one.append(identity(1))
        two.append(identity(2))
    assert recorded(storage) == [identity(1)]


def test_a_writer_that_wakes_up_late_is_refused_and_nothing_is_lost(storage):
    late = open_writer(storage, STUDY, timing=QUICK)
    late.append(identity(1))
    late._lease.stop()  # asleep: its heart stands still, its process lives
    with open_writer(storage, STUDY, timing=QUICK) as successor:
        successor.append(identity(2))
        with pytest.raises(LeaseLost):
            late.append(identity(3))
        assert successor.append(identity(3))
    assert recorded(storage) == [identity(1), identity(2), identity(3)]


def test_a_fence_still_holds_after_its_epoch_was_sealed(storage):
    late = open_writer(storage, STUDY, timing=QUICK)
    late.append(identity(1))
    late._lease.stop()
    with open_writer(storage, STUDY, timing=QUICK) as successor:
        successor.append(identity(2))
        successor.seal()
        with pytest.raises(LeaseLost):
            late.append(identity(3))
    assert recorded(storage) == [identity(1), identity(2)]


def test_two_successors_cannot_share_an_epoch(storage):
    lease = acquire(storage, STUDY, timing=QUICK)
    with pytest.raises(StudyBusy):
        acquire(storage, STUDY, timing=QUICK)
    lease.release()
    acquire(storage, STUDY, timing=QUICK).release()


def test_an_append_that_failed_but_arrived_is_adopted(storage, monkeypatch):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        create = storage.create

        def arrives_then_fails(name: str, data: bytes, durable: bool = True) -> bool:
            create(name, data)
            raise OSError("connection reset")

        monkeypatch.setattr(storage, "create", arrives_then_fails)
        with pytest.raises(OSError, match="reset"):
            writer.append(identity(1), {"values": 1})
        monkeypatch.undo()
        writer.append(identity(2))
        assert not writer.append(identity(1))
    assert recorded(storage) == [identity(1), identity(2)]


def end_on_a_full_disk(storage, monkeypatch, error: Exception | None) -> None:
    """Open a study, fill the disk up, and leave with the error or without one."""
    with monkeypatch.context() as full, open_writer(storage, STUDY, timing=QUICK):
        full.setattr("os.fsync", _no_space)
        if error is not None:
            raise error


def test_on_a_full_disk_what_ended_the_writer_is_reported_and_not_the_lease(storage, monkeypatch):
    with pytest.raises(ValueError, match="what ended it"):
        end_on_a_full_disk(storage, monkeypatch, ValueError("what ended it"))


def test_a_lease_that_cannot_be_given_back_is_reported_where_nothing_else_is(storage, monkeypatch):
    with pytest.raises(OSError, match="No space"):
        end_on_a_full_disk(storage, monkeypatch, None)


def test_a_full_disk_leaves_nothing_half_written(storage, monkeypatch):
    with open_writer(storage, STUDY, timing=QUICK) as writer:
        with monkeypatch.context() as full:
            full.setattr("os.fsync", _no_space)
            with pytest.raises(OSError, match="No space left"):
                writer.append(identity(1))
        assert recorded(storage) == []
        assert writer.append(identity(1))
    assert recorded(storage) == [identity(1)]


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_storage_that_overwrites_is_refused(storage, monkeypatch):
    probe(storage)

    def overwrite(name: str, data: bytes, durable: bool = True) -> bool:
        storage.replace(name, data)
        return True

    monkeypatch.setattr(storage, "create", overwrite)
    with pytest.raises(InputError, match="is not refused"):
        probe(storage)


def test_an_unwritable_store_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        open_writer(LocalStorage(tmp_path / "file"), STUDY)


def test_storages_are_opened_by_url(tmp_path):
    assert open_storage(str(tmp_path)).root == open_storage(f"file://{tmp_path}").root
    with pytest.raises(InputError, match="only local folders"):
        open_storage("ftp://example.org/x")


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden"])
def test_a_study_name_stays_in_its_folder(name):
    with pytest.raises(InputError, match="study name"):
        study_folder(name)
    assert study_folder("alignment-ablation") == "studies/alignment-ablation"


def test_a_later_schema_is_refused(storage):
    line = Event(Place(1, 1), identity(1), 0.0, "w").encode()
    assert Event.decode(line).identity == identity(1)
    later = json.dumps(json.loads(line) | {"schema": 99}).encode()
    with pytest.raises(InputError, match="update namd"):
        Event.decode(later)


def test_a_trial_is_its_configuration_and_its_seed():
    one = trial_id({"a": 1, "b": 2.0}, 0)
    assert one == trial_id({"b": 2.0, "a": 1}, 0)
    assert len({one, trial_id({"a": 1, "b": 2.0}, 1), trial_id({"a": 2, "b": 2.0}, 0)}) == 3


def test_timing_that_would_rob_the_living_is_refused():
    with pytest.raises(ValueError, match="ttl_s"):
        LeaseTiming(ttl_s=1.0, heartbeat_s=0.5)


def test_the_writer_is_a_writer(storage):
    with open_writer(storage, STUDY) as writer:
        assert isinstance(writer, Writer)
