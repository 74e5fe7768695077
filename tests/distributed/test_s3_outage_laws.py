"""A study whose S3 goes away under it, for a while or for good: played without Ray."""

import threading
import time
from pathlib import Path

import pytest
import toy_study as toy
from play import Recorder, Theatre

from namd.config.errors import StageError
from namd.ledger.view import read_view
from namd.storage import s3
from namd.storage.lease import LeaseTiming
from namd.storage.objects import cache_folder
from namd.storage.opening import open_storage
from namd.storage.s3 import PATIENCE_VARIABLE

pytestmark = pytest.mark.serial  # An outage lasts seconds of the clock.

LIMIT_S = 6


@pytest.fixture(autouse=True)
def _quick_limits(monkeypatch):
    monkeypatch.setattr(s3, "ANSWER_S", 2)
    monkeypatch.setattr(s3, "CONNECT_S", 1)
    monkeypatch.setenv(PATIENCE_VARIABLE, str(LIMIT_S))


def spec():
    return toy.ablation(seeds=1, base={"finetune.pause_s": 0.05})


def table(view) -> dict[str, tuple]:
    return {t.trial: (t.state, t.values.get("auroc")) for t in view.trials.values()}


class AtRecord(Recorder):
    """Does something once, when the n-th record is durable."""

    def __init__(self, after: int, act) -> None:
        super().__init__(self._count)
        self.left, self.act = after, act

    def _count(self, *_) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


@pytest.fixture
def undisturbed(tmp_path):
    """The same study on a local store."""
    return Theatre(tmp_path / "local", spec()).play()


def check(view, undisturbed, url: str) -> None:
    assert view.ended == "closed"
    assert table(view) == table(undisturbed)
    assert view.counts()["completed"] == 3
    assert view.executions() == undisturbed.executions()
    assert set(view.executions().values()) == {1}
    assert table(read_view(open_storage(url), "toys")) == table(undisturbed)


@pytest.mark.parametrize(
    ("way", "after"),
    [
        ("cut", 12),
        pytest.param("cut", 5, marks=pytest.mark.slow),
        pytest.param("cut", 20, marks=pytest.mark.slow),
        pytest.param("stop", 12, marks=pytest.mark.slow),
    ],
)
def test_a_short_outage_is_waited_out_and_nothing_is_lost_or_doubled(
    s3_line, s3_url, undisturbed, way, after
):
    def out() -> None:
        getattr(s3_line, way)()
        threading.Timer(LIMIT_S / 2, s3_line.mend).start()

    reporter = AtRecord(after, out)
    view = Theatre(s3_url, spec(), reporter=reporter).play()
    assert reporter.left <= 0
    check(view, undisturbed, s3_url)
    bodies = [line for line in toy.read_diary(cache_folder(s3_url)) if " step " not in line]
    places = [line.partition(" from ")[0] for line in bodies]
    assert len(set(places)) == len(places)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "after"),
    [
        ("cut", 12),
        ("cut", 3),
        ("cut", 24),
        ("stop", 12),
    ],
)
def test_an_outage_for_good_ends_in_one_line_and_the_study_goes_on_later(
    s3_line, s3_url, undisturbed, way, after
):
    gone: list[float] = []

    def out() -> None:
        getattr(s3_line, way)()
        gone.append(time.monotonic())

    with pytest.raises(StageError, match="does not answer") as caught:
        Theatre(s3_url, spec(), reporter=AtRecord(after, out)).play()
    # The limit, a try of each process at its begin and its end, and what stage workers have to
    # save.
    assert time.monotonic() - gone[0] < LIMIT_S + 40
    assert s3_url in str(caught.value)
    assert "--resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    s3_line.mend()
    before = read_view(open_storage(s3_url), "toys")
    assert before.counts()["failed"] == 0
    # Its own process lives on, which nobody takes for dead before the time is over.
    again = Theatre(s3_url, spec(), ledger_timing=LeaseTiming(heartbeat_s=1.0, ttl_s=4.0))
    check(again.play(), undisturbed, s3_url)


@pytest.mark.slow
def test_lost_answers_lose_and_double_nothing(s3_line, s3_url, undisturbed):
    for word in (b"events/00000001-00000007", b"events/00000001-00000011", b"/COMMIT HTTP"):
        s3_line.lose_answer(word)
    view = Theatre(s3_url, spec()).play()
    assert s3_line.answers_lost
    check(view, undisturbed, s3_url)


def test_a_store_that_was_never_reached_is_refused_at_once(s3_line, s3_url, tmp_path):
    from namd.pipeline.store import StoreError, open_store

    open_store(s3_url)
    s3_line.cut()
    began = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):
        open_store(s3_url)
    assert time.monotonic() - began < LIMIT_S
    assert not (Path(tmp_path) / "s3:").exists()
