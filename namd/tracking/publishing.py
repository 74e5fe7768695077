"""Publishing a study again, from its records and its stages' metrics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from namd.ledger.schema import StageDone
from namd.tracking.protocol import Tracker
from namd.tracking.wandb_tracker import StepsOfKey, TrackedEvent


def publish(
    events: Iterable[TrackedEvent],
    steps_of_key: StepsOfKey,
    rows: Sequence[Mapping[str, Any]],
    tracker: Tracker,
    effects: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Repeat all calls that a running study's tracker received; return the number of records.

    Args:
        events: The records, in the ledger's order; may be a lazy iterator.
        steps_of_key: Returns a stage's metrics, one mapping per step with its `index`; empty if
            the artifact was removed.
        rows: The final table; if empty, none is written.
        tracker: Closed at the end. Its errors are raised here.
        effects: The effects of the study's design, beside the table.
    """
    count = 0
    published: set[str] = set()
    for trial, attempt, transition, body in events:
        if transition.startswith("stage/") and body["key"] not in published:
            published.add(body["key"])
            _send_steps(StageDone.decode(body), steps_of_key, tracker)
        tracker.event(trial, attempt, transition, body)
        count += 1
    if rows:
        tracker.table(rows, effects)
    tracker.close()
    return count


def _send_steps(done: StageDone, steps_of_key: StepsOfKey, tracker: Tracker) -> None:
    lines = list(steps_of_key(done.stage_name, done.key))
    total = max((int(line["index"]) for line in lines), default=0)
    for line in lines:
        metrics = {name: value for name, value in line.items() if value is not None}
        tracker.step(done.stage, done.key, int(metrics.pop("index")), total, metrics)
