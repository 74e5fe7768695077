"""A study as W&B runs: one per attempt of a trial, one per stage, one of the study itself.

Attempts and stages are written when they have ended, so that memory does not grow with the
study; online, a stage is also shown while it is built. Failures raise TrackingError: wrap it in
`BackgroundTracker` if a study must not fail with it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from namd.ledger.schema import StageDone
from namd.storage.stage_names import StageName
from namd.tracking.privacy import clean, clean_text
from namd.tracking.runs import History, RunContent, StudyRuns, finite, flat_row
from namd.tracking.wandb_writer import OpenRun, RunWriter

TrackedEvent = tuple[str | None, int, str, Mapping[str, Any]]
"""A record as a tracker receives it: trial, attempt, transition, body."""

StepsOfKey = Callable[[StageName, str], Iterable[Mapping[str, Any]]]
"""From a stage and its key to what it measured: one mapping per step, with its `index`."""

ImagesOfKey = Callable[[StageName, str], Sequence[tuple[str, bytes]]]
"""From a stage and its key to (caption, PNG) of a few pictures; often none."""

MAX_IMAGES = 8
MAX_OPEN = 8
MAX_BUFFERED = 64
"""Per stage; stages shown while they are built; stages whose steps are kept meanwhile."""


@dataclass
class _Building:
    """A stage that is not known to be published yet."""

    history: History = field(default_factory=History)
    shown: OpenRun | None = None
    last: int = -1


class WandbTracker:
    """Shows a study in W&B.

    Args:
        writer: Writes runs.
        earlier: The study's records so far, for a study that is resumed: runs that earlier
            openings' trackers wrote are not written again.
        steps_of_key: Metrics of a published stage; None: those received by `step`.
        images_of_key: Pictures of a published stage, used only if the study file's
            `tracking.images` is true.
    """

    def __init__(
        self,
        writer: RunWriter,
        *,
        earlier: Callable[[], Iterable[TrackedEvent]] | None = None,
        steps_of_key: StepsOfKey | None = None,
        images_of_key: ImagesOfKey | None = None,
    ) -> None:
        self._writer = writer
        self._earlier = earlier
        self._steps_of_key = steps_of_key
        self._images_of_key = images_of_key
        self._runs = StudyRuns()
        self._building: dict[str, _Building] = {}
        self._written: set[str] = set()
        self._tables: dict[str, list[dict[str, Any]]] = {}

    def event(
        self, trial: str | None, attempt: int, transition: str, body: Mapping[str, Any]
    ) -> None:
        """Apply a record; write the runs that it ends. Raises TrackingError."""
        if self._earlier is not None and transition == "opened" and attempt > 1:
            self._catch_up(self._earlier())
        self._earlier = None
        ended = self._runs.event(trial, attempt, transition, body)
        if transition.startswith("stage/"):
            self._stage(StageDone.decode(body))
        if ended is not None:
            self._write(ended)

    def step(
        self,
        label: str,
        key: str,
        index: int,
        total: int,  # noqa: ARG002 - the protocol's
        metrics: Mapping[str, float],
    ) -> None:
        """Keep a stage's metrics, and show them if the writer is online."""
        if key in self._written:
            return
        building = self._building.get(key)
        if building is None:
            self._make_room()
            building = self._building[key] = _Building()
        building.history.add(index, metrics)
        if self._writer.streaming:
            self._show(label, key, building, index, finite(metrics))

    def table(
        self, rows: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keep the final table for the study's own run, with effects if there are any."""
        tables = {"table": rows, "effects": effects} if effects else {"table": rows}
        self._tables = {
            name: [flat_row(clean(row)) for row in found] for name, found in tables.items()
        }

    def close(self) -> None:
        """Write the study's own run, end open stage runs, and close. Raises TrackingError."""
        for key, building in self._building.items():
            if building.shown is not None:
                content = self._runs.stage_run("unfinished", key)
                building.shown.finish(replace(content, tags=("unfinished",), failed=True))
        self._building.clear()
        if self._runs.study:
            content = self._runs.study_run()
            self._writer.open(content).finish(content, tables=self._tables)
        self._writer.close()

    def abandon(self) -> None:
        """End immediately, from another thread."""
        self._writer.abandon()

    def _catch_up(self, earlier: Iterable[TrackedEvent]) -> None:
        for trial, attempt, transition, body in earlier:
            self._runs.event(trial, attempt, transition, body)
            if transition.startswith("stage/"):
                self._written.add(str(body["key"]))

    def _stage(self, done: StageDone) -> None:
        """Write a published stage's run, once."""
        key, stage = done.key, done.stage_name
        building = self._building.pop(key, None) or _Building()
        if key in self._written:
            return
        self._written.add(key)
        summary = {
            "seconds": float(done.seconds),
            "device_seconds": float(done.device_seconds),
        }
        content = self._runs.stage_run(done.stage, key)
        content = replace(content, tags=("found" if done.cached else "built",))
        images: list[tuple[str, bytes]] = []
        if self._runs.images and self._images_of_key is not None:
            found = self._images_of_key(stage, key)[:MAX_IMAGES]
            images = [(clean_text(caption), png) for caption, png in found]
        if building.shown is not None:
            building.shown.finish(replace(content, summary=summary), images=images)
            return
        history = building.history
        if self._steps_of_key is not None:
            stored = History()
            for line in self._steps_of_key(stage, key):
                stored.add(int(line["index"]), line)
            history = stored if stored.lines else history
        self._write(replace(content, history=history.lines, summary=summary), images)

    def _write(self, content: RunContent, images: Sequence[tuple[str, bytes]] = ()) -> None:
        run = self._writer.open(content)
        for step, metrics in content.history:
            run.log(step, metrics)
        run.finish(content, images=images)

    def _show(
        self, label: str, key: str, building: _Building, index: int, measured: Mapping[str, float]
    ) -> None:
        if building.shown is None:
            if sum(b.shown is not None for b in self._building.values()) >= MAX_OPEN:
                return
            building.shown = self._writer.open(self._runs.stage_run(label, key))
            lines = building.history.lines
        else:
            lines = [(index, dict(measured))]
        for step, metrics in lines:
            # W&B's histories only grow: a step that a resumed body repeats is shown once.
            if metrics and step > building.last:
                building.shown.log(step, metrics)
                building.last = step

    def _make_room(self) -> None:
        """Drop the steps of unpublished stages beyond a limit."""
        hidden = [key for key, building in self._building.items() if building.shown is None]
        if len(hidden) >= MAX_BUFFERED:
            del self._building[hidden[0]]
