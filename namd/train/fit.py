"""A whole training: resume, the loop, validations, checkpoints, and which weights are kept."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from namd.losses.gather import alone
from namd.train.checkpoints import Checkpoints
from namd.train.loop import DivergedError, TrainState, train
from namd.train.stopping import stop_requests
from namd.train.workers import World
from namd.train.world import mean_over_workers

Validate = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Progress:
    """Where a training stands: `index` of `total` steps, and what was measured there."""

    index: int
    total: int
    metrics: dict[str, float]


@dataclass
class Kept:
    """The validations so far, and the weights that would be kept if the training ended now.

    Attributes:
        history: (step, validation loss), oldest first.
        weights: Of the step to keep.
        step: Of those weights.
    """

    history: list[tuple[int, float]] = field(default_factory=list)
    weights: dict[str, Tensor] | None = None
    step: int = 0

    def offer(
        self,
        step: int,
        loss: float,
        rule: str,
        tolerance: float,
        weights: Callable[[], dict[str, Tensor]],
    ) -> None:
        """Keep these weights if the rule prefers them to the ones held."""
        best = min((value for _, value in self.history), default=float("inf"))
        self.history.append((step, loss))
        limit = best * (1 + tolerance) if rule == "before_rise" else best
        if rule == "last" or self.weights is None or loss <= limit:
            self.weights = None  # two copies of a large network would not fit side by side
            self.weights, self.step = weights(), step

    def to_mapping(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {
            "history": [list(pair) for pair in self.history],
            "weights": self.weights,
            "step": self.step,
        }

    @classmethod
    def from_mapping(cls, saved: dict[str, Any]) -> "Kept":
        """Undo `to_mapping`."""
        history = [(int(step), float(loss)) for step, loss in saved["history"]]
        return cls(history, saved["weights"], saved["step"])


def fit(
    state: TrainState,
    batches: Callable[[int], Any],
    validate: Validate | None,
    folder: Path,
    *,
    log_every: int = 25,
) -> Iterator[Progress]:
    """Train to the end, resuming from `folder`; afterwards the objective holds the weights to keep.

    `validate` runs on the weights that would be kept (averaged, if averaging is on), in eval
    mode, and returns at least `validation_loss`, which the rule `settings.keep` reads. Every
    rank runs it alike on all its cases. On SIGTERM, or `request_stop` on any rank, a checkpoint is
    written before the process ends with 143, so a preempted stage loses nothing.

    Yields Progress at least every `log_every` steps and at every validation.

    Raises DivergedError if a loss, a gradient or `validation_loss` is not finite; the weights
    that came of it are neither saved nor kept.
    """
    checkpoints = Checkpoints(folder, state.world)
    kept = _resume(state, checkpoints)
    pending: list[dict[str, Tensor]] = []
    if validate is not None and not kept.history:
        metrics = _validate(state, validate, kept)
        yield Progress(state.step, state.num_steps, metrics)
    with stop_requests() as told_to_stop:
        for done in train(state, batches, told_to_stop):
            pending.append(done.metrics)
            metrics = {}
            if validate is not None and _due(
                done.index, state.settings.validate_every, state.num_steps
            ):
                metrics |= _validate(state, validate, kept)
            if metrics or _due(done.index, log_every, state.num_steps):
                measured = _mean(pending, state.world)
                yield Progress(done.index, state.num_steps, measured | metrics)
                pending = []
            if done.leaving or _due(done.index, state.settings.checkpoint_every, state.num_steps):
                shared = state.shared_state() | {"kept": kept.to_mapping()}
                checkpoints.save(state.step, shared, state.own_state())
                state.last_checkpoint = state.step
            if done.leaving:
                raise SystemExit(143)
    state.release()
    if kept.weights is not None and state.settings.keep != "last":
        state.put({k: v.to(state.world.device) for k, v in kept.weights.items()})
    else:
        state.put(state.kept())
    state.objective.eval()


def _resume(state: TrainState, checkpoints: Checkpoints) -> Kept:
    state.seed_dropout()
    found = checkpoints.load()
    if found is None:
        return Kept()
    _, shared, own = found
    state.restore(shared, own)
    return Kept.from_mapping(shared["kept"])


def _validate(state: TrainState, validate: Validate, kept: Kept) -> dict[str, float]:
    settings = state.settings
    with torch.no_grad(), state.averaged(), alone():
        state.objective.eval()
        metrics = validate()
        if not math.isfinite(metrics["validation_loss"]):
            raise DivergedError(
                state.name, state.step, metrics, state.last_checkpoint, "validation_loss"
            )
        kept.offer(
            state.step,
            metrics["validation_loss"],
            settings.keep,
            settings.rise_tolerance,
            state.kept,
        )
    return metrics


def _due(step: int, every: int, total: int) -> bool:
    return step % every == 0 or step == total


def _mean(rows: list[dict[str, Tensor]], world: World) -> dict[str, float]:
    names = list({name: None for row in rows for name in row})
    means = [torch.stack([r[n].float().cpu() for r in rows if n in r]).mean() for n in names]
    together = mean_over_workers(torch.stack(means), world)
    return dict(zip(names, together.tolist(), strict=True))
