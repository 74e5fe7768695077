"""How a network is trained, as values. Torch-free."""

import math
from dataclasses import dataclass
from typing import Literal

_NEVER_NEGATIVE = (
    "num_steps",
    "num_epochs",
    "weight_decay",
    "warmup_steps",
    "start_learning_rate",
    "min_learning_rate",
    "rise_tolerance",
)


@dataclass(frozen=True)
class TrainingSettings:
    """One training: its length, batches, AdamW and what is kept.

    Attributes:
        num_steps: Optimiser steps.
        num_epochs: If given, replaces num_steps by this many passes over the training set.
        batch_size: Global batch, over all workers.
        learning_rate: Peak learning rate.
        betas: AdamW's.
        weight_decay: AdamW's.
        warmup_steps: Linear warm-up from `start_learning_rate`.
        start_learning_rate: Learning rate of step 0 if there is a warm-up.
        lr_schedule: `constant` or `cosine` down to `min_learning_rate`.
        min_learning_rate: Where the cosine ends.
        max_norm: Gradient clipping; None: off.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        keep: `best` validation loss, `before_rise` (the latest validation whose loss is within
            `rise_tolerance` of the best: the paper's "later checkpoint right before
            overfitting"), or `last`.
        rise_tolerance: Relative; see `keep`.
        ema_decay: Exponential moving average of the weights, used for validation and kept;
            0: off.
    """

    num_steps: int = 1000
    num_epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    warmup_steps: int = 0
    start_learning_rate: float = 0.0
    lr_schedule: Literal["constant", "cosine"] = "constant"
    min_learning_rate: float = 0.0
    max_norm: float | None = None
    validate_every: int = 100
    checkpoint_every: int = 200
    keep: Literal["best", "before_rise", "last"] = "best"
    rise_tolerance: float = 0.002
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        """Reject impossible numbers."""
        for name in _NEVER_NEGATIVE:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is 0 or more, not {value}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is 1 or more, not {self.batch_size}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is above 0, not {self.learning_rate}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in [0, 1), not {list(self.betas)}")
        if min(self.validate_every, self.checkpoint_every) < 1:
            raise ValueError("validate_every and checkpoint_every are 1 or more")
        if self.max_norm is not None and self.max_norm <= 0:
            raise ValueError(f"max_norm is above 0 or null, not {self.max_norm}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay lies in [0, 1), not {self.ema_decay}")

    def steps_for(self, num_cases: int) -> int:
        """Return the number of optimiser steps on a training set of that many cases."""
        if self.num_epochs is None:
            return self.num_steps
        return self.num_epochs * max(1, num_cases // self.batch_size)

    def rate_at(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step (0-based) of a training of that many steps."""
        if step < self.warmup_steps:
            share = step / self.warmup_steps
            return self.start_learning_rate + share * (
                self.learning_rate - self.start_learning_rate
            )
        if self.lr_schedule == "constant":
            return self.learning_rate
        span = max(1, num_steps - self.warmup_steps)
        share = min(1.0, (step - self.warmup_steps) / span)
        swing = 0.5 * (1 + math.cos(math.pi * share))
        return self.min_learning_rate + swing * (self.learning_rate - self.min_learning_rate)
