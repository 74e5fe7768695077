"""Fixtures around the toy run, for every room that starts or kills it."""

import multiprocessing
import os

import pytest


@pytest.fixture
def diary(tmp_path, monkeypatch):
    """Where the toy bodies write what they computed."""
    path = tmp_path / "diary.txt"
    # A killed process loses nothing that it wrote: flushing to the disk matters to power alone.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setenv("TOY_DIARY", str(path))
    return path


@pytest.fixture
def start(diary):
    """Start the toy run in a forked process; whatever is left over is killed at the end.

    Forked, because importing everything anew would cost more than the run.
    """
    running = []

    def launch(store, *overrides, crash=None):
        from toy_run import execute

        process = multiprocessing.get_context("fork").Process(
            target=execute, args=(str(store), overrides, crash)
        )
        process.start()
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.join()
