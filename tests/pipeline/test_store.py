"""Artifacts are published once, found whole or not at all, and removed only when nobody builds."""

import json

import pytest
from toy_run import TIMING, toy_run

from namd.pipeline.collection import collect
from namd.pipeline.leases import Leases
from namd.pipeline.store import open_store
from namd.storage.base import probe
from namd.storage.errors import StoreError
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.process import Holder

KEY = "ab" * 32


def filled(store, content="data", key=KEY):
    attempt = store.open_attempt("train", key)
    (attempt.payload / "x.txt").write_text(content)
    (attempt.folder / "manifest.json").write_text("{}")
    (attempt.folder / "metrics.jsonl").write_text("")
    return attempt


def test_what_is_published_is_found_and_what_is_not_is_not(store):
    attempt = filled(store)
    assert store.find("train", KEY) is None
    artifact, won = store.publish(attempt)
    assert won
    assert (store.find("train", KEY).payload / "x.txt").read_text() == "data"
    assert artifact.size == 6


def test_a_late_writer_loses_and_leaves_nothing(store):
    early, late = filled(store, "early"), filled(store, "late")
    assert store.publish(early)[1]
    artifact, won = store.publish(late)
    assert not won
    assert (artifact.payload / "x.txt").read_text() == "early"
    assert not late.folder.exists()


def test_a_published_attempt_cannot_be_abandoned(store):
    attempt, other = filled(store), filled(store)
    store.publish(attempt)
    store.abandon(attempt)
    store.abandon(other)
    assert store.verify("train", KEY) == []
    assert not other.folder.exists()


def test_verify_finds_each_kind_of_damage_and_find_refuses_it(store):
    artifact, _ = store.publish(filled(store))
    assert store.verify("train", KEY) == []
    path = artifact.payload / "x.txt"
    path.write_text("dat!")
    assert store.verify("train", KEY) == ["payload/x.txt has changed"]
    with pytest.raises(StoreError, match=r"x\.txt has changed.*namd store rm train/abab"):
        store.find("train", KEY)
    assert store.find("train", KEY, digests=False) is not None
    path.write_text("data")
    assert store.find("train", KEY) is not None
    path.write_text("da")
    with pytest.raises(StoreError, match="namd store rm"):
        store.find("train", KEY)
    path.unlink()
    (artifact.payload / "y.txt").write_text("new")
    assert store.verify("train", KEY) == ["payload/x.txt is missing", "payload/y.txt was added"]


def test_a_damaged_artifact_is_built_again_once_removed(store, diary):
    first = toy_run(store, "evaluate.num_draws=1")
    artifact = first.artifacts["encode"]
    (artifact.payload / "z.npy").unlink()
    with pytest.raises(StoreError, match="damaged"):
        toy_run(store, "evaluate.num_draws=1")
    store.remove("encode", artifact.key)
    again = toy_run(store, "evaluate.num_draws=1")
    assert [s.stage.label for s in again.stages if not s.cached] == ["encode"]
    assert again.rows == first.rows


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds other things"):
        open_store(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "thesis.txt").unlink()
    assert open_store(str(tmp_path))
    assert open_store(f"file://{tmp_path}")


@pytest.mark.parametrize(
    ("text", "word"), [('{"schema": 99}', "schema 99"), ("{", "unreadable"), ("[]", "unreadable")]
)
def test_another_schema_version_is_refused(tmp_path, text, word):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match=word):
        open_store(str(tmp_path))


def test_an_unknown_kind_of_place_and_an_absent_one_are_refused(tmp_path):
    with pytest.raises(StoreError, match="only local folders"):
        open_store("ftp://somewhere/else")
    with pytest.raises(StoreError, match="no store there"):
        open_store(str(tmp_path / "absent"), create=False)


def test_a_backend_that_lets_two_callers_win_is_refused(tmp_path):
    class Careless(LocalStorage):
        def create(self, name, data, durable=True):
            self.replace(name, data)
            return True

    with pytest.raises(StoreError, match="two processes"):
        probe(Careless(tmp_path))
    probe(LocalStorage(tmp_path))


def test_a_living_holder_keeps_others_out_and_a_released_lease_lets_them_in(store):
    lease = store.leases.acquire(f"train/{KEY}")
    assert lease is not None
    assert store.leases.acquire(f"train/{KEY}") is None
    with pytest.raises(StoreError, match="building"):
        store.remove("train", KEY)
    lease.release()
    second = store.leases.acquire(f"train/{KEY}")
    assert second.epoch == 2
    assert lease.lost()
    assert not second.lost()
    second.stop()


def test_a_lease_lies_on_disk_as_every_version_reads_it(store):
    lease = store.leases.acquire(f"train/{KEY}")
    folder = store.backend.folder / "train" / KEY
    record = json.loads((folder / "lease-1").read_text())
    assert list(record) == ["host", "boot", "namespace", "pid", "started", "token"]
    first = json.loads((folder / "heartbeat-1").read_text())
    assert list(first) == ["count", "seconds", "released"]
    assert (first["count"], first["released"]) == (1, False)
    lease.release()
    assert json.loads((folder / "heartbeat-1").read_text())["released"]


def foreign_lease(store, **changes):
    holder = {**Holder.here().__dict__, "host": "elsewhere", **changes}
    store.backend.replace(f"train/{KEY}/lease-1", json.dumps(holder).encode())
    store.backend.replace(f"train/{KEY}/heartbeat-1", b'{"count": 1, "seconds": 7}')


def test_a_silent_holder_elsewhere_expires_on_the_observers_clock(store):
    now = [0.0]
    leases = Leases(store.backend, LeaseTiming(1.0, 10.0), clock=lambda: now[0])
    foreign_lease(store)
    assert leases.acquire(f"train/{KEY}") is None
    now[0] = 9.0
    assert leases.acquire(f"train/{KEY}") is None
    now[0] = 10.5
    lease = leases.acquire(f"train/{KEY}")
    assert lease.spent_before_s == 7.0
    lease.stop()


def test_a_holder_that_shows_life_never_expires(store):
    now = [0.0]
    leases = Leases(store.backend, LeaseTiming(1.0, 10.0), clock=lambda: now[0])
    foreign_lease(store)
    for beat in range(2, 6):
        assert leases.acquire(f"train/{KEY}") is None
        now[0] += 9.0
        store.backend.replace(f"train/{KEY}/heartbeat-1", json.dumps({"count": beat}).encode())


@pytest.mark.parametrize("dead", [{"pid": 2**22 + 1}, {"started": 1}])
def test_a_dead_process_of_this_host_is_known_at_once(store, dead):
    foreign_lease(store, host=Holder.here().host, **dead)
    lease = store.leases.acquire(f"train/{KEY}")
    assert lease is not None
    lease.stop()


@pytest.mark.parametrize("other", [{"boot": "another"}, {"namespace": "pid:[1]"}, {"host": "h"}])
def test_a_process_number_of_elsewhere_says_nothing(store, other):
    foreign_lease(store, **{"host": Holder.here().host, "pid": 2**22 + 1, **other})
    assert store.leases.acquire(f"train/{KEY}") is None


def test_collection_removes_leftovers_and_keeps_checkpoints_of_unfinished_work(store):
    store.publish(filled(store))
    filled(store, "half")
    other = "cd" * 32
    filled(store, "half", other)
    (store.checkpoints("train", other) / "state.json").write_text("{}")
    planned = collect(store, dry=True).removed
    assert len(planned) == 2
    assert collect(store).removed == planned
    assert store.verify("train", KEY) == []
    assert store.backend.names(f"train/{other}/checkpoints") == ["state.json"]
    assert collect(store, wanted=set).removed == [f"train/{KEY}", f"train/{other}"]
    assert list(store.entries()) == []


def test_collection_leaves_what_is_being_built(tmp_path):
    store = open_store(str(tmp_path / "s"), LeaseTiming(0.05, 0.2))
    lease = store.leases.acquire(f"train/{KEY}")
    filled(store)
    assert collect(store, wanted=set).held == [f"train/{KEY}"]
    lease.release()
    assert collect(store, wanted=set).removed == [f"train/{KEY}"]


def test_collection_asks_again_before_it_removes_and_spares_what_is_new(store, monkeypatch):
    first, second, fresh = "aa" * 32, "bb" * 32, "cc" * 32
    store.publish(filled(store, key=first))
    store.publish(filled(store, key=second))
    filled(store, "half", key=fresh)
    needed: set[tuple[str, str]] = set()
    remove = store.remove

    def removed(stage, key):
        remove(stage, key)
        needed.add(("train", second))
        store.publish(filled(store, key=fresh))

    monkeypatch.setattr(store, "remove", removed)
    assert collect(store, wanted=lambda: set(needed)).removed == [f"train/{first}"]
    assert store.verify("train", second) == store.verify("train", fresh) == []
    monkeypatch.setattr(store, "remove", remove)
    assert collect(store, wanted=set).removed == [f"train/{second}", f"train/{fresh}"]


def test_collection_leaves_what_somebody_begins_to_build_meanwhile(store):
    filled(store, "half")
    leases = []

    def wanted():
        leases.append(store.leases.acquire(f"train/{KEY}"))
        return set()

    freed = collect(store, wanted)
    assert (freed.removed, freed.held) == ([], [f"train/{KEY}"])
    leases[0].release()


@pytest.mark.parametrize("name", ["runs", "cache", "cohorts", ".probe", "a/b"])
def test_a_stage_cannot_take_a_name_of_the_stores_own(store, name):
    with pytest.raises(ValueError, match="cannot be called"):
        store.find(name, KEY)
    assert store.find("probe", KEY) is None


def test_collection_spares_a_stage_called_probe(store):
    attempt = store.open_attempt("probe", KEY)
    (attempt.payload / "x.txt").write_text("data")
    store.publish(attempt)
    collect(store)
    assert [entry.stage for entry in store.entries()] == ["probe"]
    assert store.verify("probe", KEY) == []


def test_a_time_to_live_shorter_than_four_heartbeats_is_refused():
    with pytest.raises(ValueError, match="4 heartbeats"):
        LeaseTiming(5.0, 19.0)
    assert LeaseTiming(5.0, 20.0)


def test_timing_of_the_tests_is_valid():
    assert TIMING.ttl_s == 2.0
