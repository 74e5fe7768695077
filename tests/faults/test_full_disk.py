"""A disk that is full or may not be written ends in one line, and nothing half done is found."""

import errno
import os
from pathlib import Path

import pytest
from toy_run import TIMING, toy_run

from namd.config.errors import InputError
from namd.pipeline.store import Store, open_store
from namd.storage.errors import StoreError, explained, storage_problem
from namd.storage.local import LocalStorage

pytestmark = pytest.mark.serial

ONE = "evaluate.num_draws=1"


class FullAfter(LocalStorage):
    """A disk on which so many small files still fit."""

    def __init__(self, root, files):
        super().__init__(root)
        self.files = files

    def _temporary(self, path, data, durable):
        self.files -= 1
        if self.files < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super()._temporary(path, data, durable)


@pytest.mark.parametrize("files", [0, 1, 2, 3, 5, 7, 9, 11])
def test_wherever_the_disk_fills_up_the_error_is_one_line_and_a_larger_disk_ends_the_run(
    tmp_path, diary, files
):
    root = tmp_path / "store"
    open_store(str(root), TIMING)
    with pytest.raises(StoreError, match="no space left") as refused:
        toy_run(Store(FullAfter(root, files), TIMING), ONE)
    assert "\n" not in str(refused.value)
    assert "--store" in str(refused.value)
    store = open_store(str(root), TIMING)
    result = toy_run(store, ONE)
    assert len(result.rows) == 1
    for entry in store.entries():
        assert store.verify(entry.stage, entry.key) == []


def test_a_disk_that_is_large_enough_ends_the_run(tmp_path, diary):
    open_store(str(tmp_path / "store"), TIMING)
    assert toy_run(Store(FullAfter(tmp_path / "store", 1000), TIMING), ONE).rows


def test_a_full_disk_under_a_body_is_named_as_such(tmp_path, diary, monkeypatch):
    import numpy as np

    def save(*_arguments):
        with Path("/dev/full").open("wb") as stream:
            stream.write(b"0" * 100_000)

    store = open_store(str(tmp_path / "store"), TIMING)
    monkeypatch.setattr(np, "save", save)
    with pytest.raises(StoreError, match="no space left"):
        toy_run(store, ONE)
    monkeypatch.undo()
    monkeypatch.setenv("TOY_DIARY", str(diary))
    assert toy_run(store, ONE).rows


def test_a_read_only_place_is_refused_in_one_line(tmp_path, monkeypatch):
    def refuse(*_arguments, **_named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="read-only file system"):
        open_store(str(tmp_path / "store"))
    monkeypatch.undo()
    assert open_store(str(tmp_path / "store"))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(InputError):
        open_store(str(tmp_path / "store"))


def test_words_and_causes_of_other_libraries_are_understood():
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "x")
    assert storage_problem(wrapped) == "no space left"
    assert storage_problem(RuntimeError("I/O error: No space left on device")) == "no space left"
    assert storage_problem(RuntimeError("the loss is odd")) is None


def test_a_file_elsewhere_that_may_not_be_read_is_not_the_stores_fault(tmp_path):
    error = PermissionError(errno.EACCES, "denied", "/elsewhere/cases.parquet")
    with pytest.raises(PermissionError), explained(str(tmp_path)):
        raise error
    with pytest.raises(StoreError), explained(str(tmp_path)):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "x"))
