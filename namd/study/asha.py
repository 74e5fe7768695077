"""Stopping trials early: asynchronous successive halving over rungs, as a pure function.

A rung is a stage boundary or a fixed fraction of a stage. Its metric is measured on validation
and defined by nothing that a search varies: never a loss, whose weights are searched.
Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA), Algorithm 2,
in the stopping variant: a trial is never paused, it goes on or it ends.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from namd.config.errors import shown

Mode = Literal["max", "min"]
Decision = Literal["continue", "stop"]


@dataclass(frozen=True)
class Rung:
    """Where trials are compared.

    Attributes:
        stage: The stage that must have come so far.
        metric: Name of a validation metric that the stage reports there.
        fraction: Share of the stage that is done; 1: its end.
        mode: Whether more is better.
    """

    stage: str
    metric: str
    fraction: float = 1.0
    mode: Mode = "max"

    def __post_init__(self) -> None:
        """Reject losses and impossible fractions."""
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction lies in (0, 1], not {self.fraction}")
        if "loss" in self.metric:
            raise ValueError(
                f"metric {shown(self.metric)}: a loss is redefined by searched weights; "
                "use a measure that they do not enter"
            )

    @property
    def name(self) -> str:
        """The rung's name in the ledger: `vae`, or `vae@0.5`."""
        return self.stage if self.fraction == 1 else f"{self.stage}@{self.fraction:g}"

    def is_reached(self, index: int, total: int) -> bool:
        """Whether step `index` of `total` is the rung's or lies behind it."""
        return index >= math.ceil(self.fraction * total)


@dataclass(frozen=True)
class AshaSettings:
    """Asynchronous successive halving.

    Attributes:
        reduction: One in so many goes on at each rung.
        minimum_peers: Values of other trials that a rung needs before it stops anyone; None:
            `reduction`.
        rungs: In the order in which a trial meets them; None: those that the method has by
            default (see namd.study.trials.Configurator.completed).
    """

    reduction: int = 3
    minimum_peers: int | None = None
    rungs: tuple[Rung, ...] | None = None

    def __post_init__(self) -> None:
        """Reject a reduction that stops all or none, and rungs of one name."""
        if self.reduction < 2:
            raise ValueError(f"reduction is 2 or more, not {self.reduction}")
        if self.minimum_peers is not None and self.minimum_peers < 1:
            raise ValueError(f"minimum_peers is 1 or more, not {self.minimum_peers}")
        names = None if self.rungs is None else [rung.name for rung in self.rungs]
        if names is not None and (not names or len(set(names)) != len(names)):
            raise ValueError(f"rungs need distinct stages or fractions, got {names}")

    @property
    def peers_needed(self) -> int:
        """Values of others that a rung waits for."""
        return self.minimum_peers if self.minimum_peers is not None else self.reduction


def decide(value: float, peers: Sequence[float], mode: Mode, settings: AshaSettings) -> Decision:
    """Say whether a trial with this value at a rung goes on.

    It goes on while few others were there, and if it is among the best 1/reduction of all that
    were (itself included; ties go on).

    Raises ValueError for a value that is not finite: that trial has diverged, not lost.
    """
    if not math.isfinite(value):
        raise ValueError(f"a rung compares finite values, got {value}")
    if len(peers) < settings.peers_needed:
        return "continue"
    sign = 1.0 if mode == "max" else -1.0
    better = sum(sign * peer > sign * value for peer in peers)
    places = math.ceil((len(peers) + 1) / settings.reduction)
    return "continue" if better < places else "stop"


@dataclass(frozen=True)
class RungRecord:
    """A value at a rung, as the ledger has it.

    Attributes:
        trial: Its trial.
        rung: The rung's name.
        value: The metric.
        proposal: Number of the trial's proposal.
    """

    trial: str
    rung: str
    value: float
    proposal: int


def peers_of(
    trial: str, rung: str, records: Sequence[RungRecord], before_proposal: int | None = None
) -> list[float]:
    """Return the values at a rung that a trial is compared with.

    Args:
        trial: The trial that asks; its own record does not count.
        rung: The rung's name.
        records: All records in the order in which they were made.
        before_proposal: Under the synchronous order only proposals below this number count:
            those of finished batches, so that no decision hangs on who arrived first.
    """
    found: dict[str, float] = {}
    for record in records:
        if record.trial == trial and record.rung == rung:
            break
        if record.rung == rung and (before_proposal is None or record.proposal < before_proposal):
            found.setdefault(record.trial, record.value)
    return list(found.values())


def replay(
    settings: AshaSettings,
    records: Sequence[RungRecord],
    batch_starts: Mapping[int, int] | None = None,
) -> list[Decision]:
    """Return the decision at each record, from the records alone.

    Args:
        settings: The rungs.
        records: In the order in which they were made.
        batch_starts: Per proposal the first number of its batch (synchronous order), or None.
    """
    modes = {rung.name: rung.mode for rung in settings.rungs or ()}
    decisions = []
    for place, record in enumerate(records):
        before = None if batch_starts is None else batch_starts[record.proposal]
        # In synchronous order values of earlier batches may be anywhere before or after.
        known = records[:place] if before is None else records
        others = [r for r in known if r.trial != record.trial]
        peers = peers_of(record.trial, record.rung, others, before)
        decisions.append(decide(record.value, peers, modes[record.rung], settings))
    return decisions
