"""A local folder refuses taken names, and believes what is there rather than a lost reply."""

import errno
import os
from pathlib import Path

import pytest

from namd.storage.local import LocalStorage


def test_a_name_that_was_given_although_the_reply_was_lost_is_ours(tmp_path, lost_replies):
    lost_replies()
    assert LocalStorage(tmp_path).create("a/x", b"mine")
    assert (tmp_path / "a" / "x").read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_name_that_another_has_is_not_ours_even_with_the_same_bytes(tmp_path):
    assert LocalStorage(tmp_path).create("a/x", b"same")
    assert not LocalStorage(tmp_path).create("a/x", b"same")
    assert not LocalStorage(tmp_path).create("a/x", b"other")


def test_a_name_that_was_not_given_is_an_error(tmp_path, monkeypatch):
    def refused(_source, _target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match="Input/output error"):
        LocalStorage(tmp_path).create("a/x", b"mine")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_rename_whose_reply_was_lost_has_happened(tmp_path, lost_replies):
    LocalStorage(tmp_path).replace("a/x", b"old")
    lost_replies()
    LocalStorage(tmp_path).replace("a/x", b"new")
    assert (tmp_path / "a" / "x").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_rename_that_did_not_happen_is_an_error(tmp_path, monkeypatch):
    LocalStorage(tmp_path).replace("a/x", b"old")

    def refused(_source, _target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="Input/output error"):
        LocalStorage(tmp_path).replace("a/x", b"new")
    assert (tmp_path / "a" / "x").read_bytes() == b"old"
