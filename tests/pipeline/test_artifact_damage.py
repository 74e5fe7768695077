"""One changed byte of an artifact is met wherever the artifact is read, and named."""

import json
import os
from pathlib import Path

import pytest
from toy_run import TIMING, toy_run

from namd.config.errors import InputError
from namd.pipeline import verification
from namd.pipeline.run import readable_runs, recorded_runs
from namd.pipeline.store import Store, open_store
from namd.storage.artifacts import CommitUnreadable, Damaged, parse_commit, read_artifact
from namd.storage.errors import StoreError
from namd.storage.local import LocalStorage

KEY = "ab" * 32
ONE = "evaluate.num_draws=1"


def filled(store, content="data"):
    attempt = store.open_attempt("train", KEY)
    (attempt.payload / "x.txt").write_text(content)
    (attempt.folder / "manifest.json").write_text("{}")
    (attempt.folder / "metrics.jsonl").write_text('{"index": 0}\n')
    return attempt


def flip(path: Path) -> bytes:
    """Change one bit in place; return what was there."""
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    return data


@pytest.mark.parametrize("place", ["payload/x.txt", "manifest.json", "metrics.jsonl"])
def test_one_flipped_bit_of_any_file_is_refused(store, place):
    artifact, _ = store.publish(filled(store))
    path = artifact.folder / place
    before = flip(path)
    with pytest.raises(Damaged, match=rf"train/{KEY[:12]} is damaged \({place} has changed\)"):
        store.find("train", KEY)
    storage = LocalStorage(store.backend.folder)
    with pytest.raises(InputError, match=rf"{place} has changed.*namd store rm train/{KEY[:12]}"):
        read_artifact(storage, "train", KEY, place)
    path.write_bytes(before)
    assert store.find("train", KEY) == artifact
    assert read_artifact(storage, "train", KEY, place) == before


def test_a_listing_reads_no_payload_but_what_it_shows_is_checked(store):
    artifact, _ = store.publish(filled(store))
    flip(artifact.payload / "x.txt")
    found = store.find("train", KEY, digests=False)
    assert found.manifest() == {}
    assert found.metrics() == [{"index": 0}]
    flip(artifact.folder / "manifest.json")
    flip(artifact.folder / "metrics.jsonl")
    for read in (found.manifest, found.metrics):
        with pytest.raises(Damaged, match="has changed"):
            read()


def test_a_process_reads_a_file_for_its_digest_once(store, monkeypatch):
    store.publish(filled(store))
    read: list[str] = []
    digest = verification.file_digest

    def counted(path):
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(verification, "FRESH_NS", -1)
    monkeypatch.setattr(verification, "_digests", {})
    monkeypatch.setattr(verification, "file_digest", counted)
    store.find("train", KEY)
    assert sorted(read) == ["manifest.json", "metrics.jsonl", "x.txt"]
    read.clear()
    open_store(store.backend.name, TIMING).find("train", KEY)
    assert read == []
    path = store.find("train", KEY).payload / "x.txt"
    os.utime(path, ns=(1, 1))
    store.find("train", KEY)
    assert read == ["x.txt"]


def test_a_file_that_changed_a_moment_ago_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_text("data")
    status = path.stat()
    first = verification.known_digest(path, status)
    path.write_text("dat!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verification.known_digest(path, status) != first


def test_a_run_that_reuses_a_damaged_stage_is_refused_and_builds_it_once_it_is_removed(
    store, diary
):
    first = toy_run(store, ONE)
    artifact = first.artifacts["encode"]
    flip(artifact.payload / "z.npy")
    with pytest.raises(StoreError, match=r"encode/.* is damaged \(payload/z\.npy has changed\)"):
        toy_run(store, ONE)
    store.remove("encode", artifact.key)
    again = toy_run(store, ONE)
    assert [s.stage.label for s in again.stages if not s.cached] == ["encode"]
    assert again.rows == first.rows


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"attempt": "a"}',
        b'{"attempt": 1, "files": {}}',
        b'{"attempt": "", "files": {}}',
        b'{"attempt": "../a", "files": {}}',
        b'{"attempt": "a", "files": []}',
        b'{"attempt": "a", "files": {"x": {"sha256": "0", "size": 1}}}',
        b'{"attempt": "a", "files": {"x": {"size": 1}}}',
        b'{"attempt": "a", "files": {"x": 1}}',
    ],
)
def test_a_damaged_commit_is_named_and_nothing_is_removed_for_it(store, raw):
    artifact, _ = store.publish(filled(store))
    commit = artifact.folder.parent.parent / "COMMIT"
    sound = commit.read_bytes()
    commit.write_bytes(raw)
    with pytest.raises(Damaged, match="COMMIT is unreadable"):
        store.find("train", KEY)
    assert store.verify("train", KEY) == ["COMMIT is unreadable"]
    late = filled(store)
    store.abandon(late)
    assert late.folder.is_dir()
    assert artifact.folder.is_dir()
    with pytest.raises(CommitUnreadable):
        parse_commit(raw)
    assert parse_commit(sound).attempt == artifact.folder.name


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_text("[]")])
def test_a_damaged_record_of_a_run_is_named_and_hides_no_other(store, diary, damage):
    first, second = toy_run(store, ONE), toy_run(store, ONE, "encode.scale=3")
    assert set(recorded_runs(store)) == {first.run, second.run}
    damage(store.backend.folder / "runs" / first.run / "run.json")
    found, damaged = readable_runs(store)
    assert set(found) == {second.run}
    assert f"namd store rm runs/{first.run[:12]}" in damaged[first.run]
    with pytest.raises(StoreError, match=first.run):
        recorded_runs(store)


def test_a_changed_value_in_the_record_of_a_run_is_noticed(store, diary):
    result = toy_run(store, ONE)
    path = store.backend.folder / "runs" / result.run / "run.json"
    record = json.loads(path.read_text())
    assert recorded_runs(store)[result.run]["config"] == record["config"]
    record["config"]["train_seed"] = 99
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="has changed since it was written"):
        recorded_runs(store)
    del record["sha256"]
    path.write_text(json.dumps(record))
    assert recorded_runs(store)[result.run]["config"]["train_seed"] == 99


def test_what_was_published_with_its_reply_lost_stays(tmp_path, lost_replies):
    store = open_store(str(tmp_path / "store"), TIMING)
    attempt = filled(store)
    lost_replies()
    artifact, won = store.publish(attempt)
    assert won
    assert (artifact.payload / "x.txt").read_text() == "data"
    assert not store.publish(filled(store, "late"))[1]
    assert store.verify("train", KEY) == []


def test_what_commit_names_is_never_removed_whatever_the_place_answers(tmp_path):
    class Forgetful(LocalStorage):
        def create(self, name, data, durable=True):
            super().create(name, data, durable)
            return False

    open_store(str(tmp_path / "store"), TIMING)
    store = Store(Forgetful(tmp_path / "store"), TIMING)
    artifact, won = store.publish(filled(store))
    assert won
    assert artifact.payload.is_dir()
    assert not store.publish(filled(store, "late"))[1]
