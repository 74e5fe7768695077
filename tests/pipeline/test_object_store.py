"""The store on S3, against a server of this machine: the local store's laws, and two machines."""

import threading

import pytest
from toy_run import TIMING, toy_run
from toy_stages import read_diary

from namd.pipeline.store import open_store
from namd.storage import objects
from namd.storage.base import probe
from namd.storage.errors import StoreError
from namd.storage.objects import CACHE_VARIABLE, cache_folder

KEY = "ab" * 32


@pytest.fixture
def url(s3_server, tmp_path, monkeypatch, request) -> str:
    """An empty prefix; the machine is identified by its cache."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "here"))
    place = f"s3://bucket/{request.node.name}"
    opened = objects.open_object_storage(place)
    opened._filesystem.call_s3("create_bucket", Bucket="bucket")
    return place


@pytest.fixture
def elsewhere(url, tmp_path, monkeypatch):
    """Open the store as another machine would: without the local copies of this one."""

    def open_there(number=1):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / f"machine{number}"))
        return open_store(url, TIMING)

    return open_there


def filled(store, content="data"):
    attempt = store.open_attempt("train", KEY)
    (attempt.payload / "x.txt").write_text(content)
    (attempt.folder / "manifest.json").write_text("{}")
    (attempt.folder / "metrics.jsonl").write_text("")
    return attempt


def test_a_run_is_the_local_one_and_computed_once_for_all_machines(url, elsewhere, store, diary):
    here = open_store(url, TIMING)
    first = toy_run(here, "evaluate.num_draws=2")
    computed = read_diary(diary)
    assert "train step 12" in computed
    there = elsewhere()
    again = toy_run(there, "evaluate.num_draws=2")
    assert read_diary(diary) == computed
    assert all(stage.cached for stage in again.stages)
    local = toy_run(store, "evaluate.num_draws=2")
    assert first.rows == again.rows == local.rows
    assert list(there.entries()) == list(store.entries())
    for entry in store.entries():
        assert there.verify(entry.stage, entry.key) == []
        a, b = (s.find(entry.stage, entry.key) for s in (there, store))
        assert payload_files(a) == payload_files(b)
        assert a.metrics() == b.metrics()


def payload_files(artifact) -> dict:
    return {name: x for name, x in artifact.files.items() if name.startswith("payload")}


def test_another_machine_resumes_the_last_checkpoint(url, elsewhere, diary):
    from namd.config.errors import StageError

    with pytest.raises(StageError):
        toy_run(open_store(url, TIMING), "train.diverge_at=7")
    there = elsewhere()
    with pytest.raises(StageError):
        toy_run(there, "train.diverge_at=7")
    assert [line for line in read_diary(diary) if "from" in line] == [
        "train from 0",
        "train from 4",
    ]


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_checkpoints_are_those_last_kept(url, elsewhere):
    here, there = open_store(url, TIMING), elsewhere()
    folder = here.checkpoints("train", KEY)
    for name in ("metrics.jsonl", "step-4"):
        (folder / name).write_text("4")
    here.keep_checkpoints("train", KEY)
    (folder / "metrics.jsonl").write_text("8")
    (folder / "step-4").rename(folder / "step-8")
    here.keep_checkpoints("train", KEY)
    (folder / "metrics.jsonl").write_text("12, never kept")
    (folder / "step-12").write_text("12, never kept")
    copy = there.checkpoints("train", KEY)
    assert names(copy) == ["metrics.jsonl", "step-8"]
    assert (copy / "metrics.jsonl").read_text() == "8"
    (copy / "step-8").write_text("8, from there")
    there.keep_checkpoints("train", KEY)
    again = open_store(url, TIMING)
    assert names(there.checkpoints("train", KEY)) == names(again.checkpoints("train", KEY))
    assert (again.checkpoints("train", KEY) / "step-8").read_text() == "8, from there"


def test_checkpoints_that_were_never_kept_stay_on_their_machine(url, elsewhere):
    here = open_store(url, TIMING)
    (here.checkpoints("train", KEY) / "step-4").write_text("4")
    assert names(open_store(url, TIMING).checkpoints("train", KEY)) == ["step-4"]
    assert names(elsewhere().checkpoints("train", KEY)) == []


def test_a_late_writer_loses_and_leaves_nothing(url, elsewhere):
    here = open_store(url, TIMING)
    there = elsewhere()
    early, late = filled(here, "early"), filled(there, "late")
    assert here.publish(early)[1]
    artifact, won = there.publish(late)
    assert not won
    assert (artifact.payload / "x.txt").read_text() == "early"
    assert not late.folder.exists()
    assert there.backend.names(f"train/{KEY}/attempts") == [early.name]


def test_one_of_many_racing_publishers_wins(url):
    store = open_store(url, TIMING)
    attempts = [filled(store, str(number)) for number in range(4)]
    won: list[bool] = []
    gate = threading.Barrier(len(attempts))

    def publish(attempt) -> None:
        gate.wait()
        won.append(store.publish(attempt)[1])

    threads = [threading.Thread(target=publish, args=(a,)) for a in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]


def test_a_lease_is_held_by_one_and_free_once_released(url, elsewhere):
    here = open_store(url, TIMING)
    there = elsewhere()
    lease = here.leases.acquire(f"train/{KEY}")
    assert there.leases.acquire(f"train/{KEY}") is None
    lease.release()
    second = there.leases.acquire(f"train/{KEY}")
    assert second.epoch == 2
    second.release()


def test_what_is_removed_is_gone_for_others_too(url, elsewhere):
    here = open_store(url, TIMING)
    here.publish(filled(here))
    there = elsewhere()
    assert there.find("train", KEY) is not None
    here.remove("train", KEY)
    assert there.find("train", KEY) is None
    assert list(there.entries()) == []


def test_a_server_that_overwrites_is_refused(url, monkeypatch):
    storage = open_store(url).backend.storage
    probe(storage)
    put = storage._filesystem.pipe_file
    monkeypatch.setattr(
        storage._filesystem,
        "pipe_file",
        lambda path, data, mode="overwrite", timeout=None: put(path, data),
    )
    with pytest.raises(StoreError, match="is not refused here"):
        probe(storage)


def test_a_dead_server_is_one_line(url, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"^store s3://bucket/.* does not answer \(") as raised:
        open_store(url)
    assert "\n" not in str(raised.value)


def test_a_bucket_that_is_not_there_is_one_line(url):
    with pytest.raises(StoreError, match="cannot be used"):
        open_store("s3://no-such-bucket/prefix")


def test_a_place_without_a_store_is_not_made_by_looking(url):
    with pytest.raises(StoreError, match="no store there"):
        open_store(url, create=False)
    open_store(url)
    open_store(url, create=False)


def test_every_url_has_local_copies_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder("s3://a/b") == cache_folder("s3://a/b/")
    assert cache_folder("s3://a/b") != cache_folder("s3://a/c")


def test_a_damaged_local_copy_is_downloaded_again_and_a_damaged_object_is_refused(url, elsewhere):
    here, there = open_store(url, TIMING), elsewhere()
    here.publish(filled(here))
    copy = there.find("train", KEY).payload / "x.txt"
    copy.write_text("dat!")
    assert there.find("train", KEY).payload / "x.txt" == copy
    assert copy.read_text() == "data"
    name = there.find("train", KEY).folder.name
    there.backend.replace(f"train/{KEY}/attempts/{name}/payload/x.txt", b"dat!")
    # Its copy is whole; what lies in the bucket is looked at by verify, and by who has no copy.
    assert there.find("train", KEY) is not None
    assert there.verify("train", KEY) == ["payload/x.txt has changed"]
    with pytest.raises(StoreError, match="has changed"):
        elsewhere(2).find("train", KEY)
