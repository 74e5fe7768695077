"""Carries the toy method through a store, here or in a process that dies at a named point."""

import os
import signal
from pathlib import Path

import toy_stages
from toy_stages import TOY, ToyWorld

from namd.config.parsing import apply_overrides
from namd.pipeline import launcher, leases
from namd.pipeline import run as runs
from namd.pipeline import store as stores
from namd.pipeline.run import Rows, RunResult, run
from namd.pipeline.run_configuration import RunConfiguration, from_mapping
from namd.pipeline.store import Store, open_store
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage

TIMING = LeaseTiming(heartbeat_s=0.2, ttl_s=2.0)


def cohort_digest(_cohort) -> str:
    return "cohort-1"


def configure(*overrides: str) -> RunConfiguration:
    return from_mapping(apply_overrides({"method": "toy"}, overrides), methods={"toy": TOY})


def toy_rows(configuration, cohort, artifacts) -> Rows:
    labels = [label for label in artifacts if label.startswith("scores-test")]
    rows = [
        {"row": label, "score": float((artifacts[label].payload / "score.json").read_text())}
        for label in labels
    ]
    return Rows(rows, 0.5)


def toy_run(store: Store, *overrides: str, reporter=None) -> RunResult:
    return run(
        configure(*overrides),
        Path("cohort"),
        store,
        reporter,
        tabulate=toy_rows,
        world=ToyWorld,
        cohort_digest=cohort_digest,
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Crash:
    """Dies at the n-th visit of a point, named `point` or `point:n`."""

    def __init__(self, word: str) -> None:
        self.point, _, count = word.partition(":")
        self.left = int(count or 1)

    def at(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                die()

    def around(self, owner, name: str, point: str, when=lambda *_: True) -> None:
        """Visit `before-point` and `after-point` around a method."""
        original = getattr(owner, name)

        def wrapped(this, *arguments, **named):
            if when(*arguments):
                self.at(f"before-{point}")
            result = original(this, *arguments, **named)
            if when(*arguments):
                self.at(f"after-{point}")
            return result

        setattr(owner, name, wrapped)


def install(crash: Crash) -> None:
    crash.around(leases.Leases, "acquire", "lease")
    crash.around(stores.Store, "open_attempt", "attempt")
    crash.around(LocalStorage, "upload", "upload")
    crash.around(LocalStorage, "create", "commit", lambda name, *_: name.endswith("COMMIT"))
    crash.around(stores.Store, "tidy", "tidy")
    crash.around(leases.Leases, "forget", "forget")
    crash.around(launcher.Launcher, "_manifest", "manifest")
    original = os.link

    def link(source, target):
        crash.at("before-link")
        original(source, target)
        crash.at("after-link")

    os.link = link
    write = toy_stages.save_checkpoint

    def save(folder, state):
        (folder / "state.partial").write_text('{"step": ')
        crash.at("during-checkpoint")
        write(folder, state)
        crash.at("after-checkpoint")

    toy_stages.save_checkpoint = save
    note = toy_stages.diary

    def diary(line):
        note(line)
        crash.at(line.replace(" ", "-"))

    toy_stages.diary = diary
    crash.around(launcher.Launcher, "_note", "note")
    recorded = runs.record

    def record(*arguments):
        crash.at("before-record")
        recorded(*arguments)
        crash.at("after-record")

    runs.record = record


def execute(store: str, overrides: tuple[str, ...], crash: str | None) -> None:
    """Run in a process of its own, which dies at the crash point, if one is named."""
    if crash is not None:
        install(Crash(crash))
    toy_run(open_store(store, TIMING), *overrides)
