"""The one place where loss terms are weighted and summed (NAMD Eq 6)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class StepOutput:
    """What one evaluation of an objective gives.

    Attributes:
        loss: What is differentiated; a scalar.
        metrics: What is logged; detached scalars.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LossTerm:
    """One named summand of an objective.

    Attributes:
        name: Its name in the log.
        weight: Its factor; 0 switches it off and saves its computation.
        compute: Returns the unweighted value, or a StepOutput to log more beside it.
    """

    name: str
    weight: float
    compute: Callable[[], Tensor | StepOutput]

    def __post_init__(self) -> None:
        """Reject a weight that would make every sum NaN."""
        if not math.isfinite(self.weight):
            raise ValueError(f"the weight of {self.name} is {self.weight}")


def weighted_sum(terms: Sequence[LossTerm]) -> StepOutput:
    """Return the sum of weight times value; the log holds `loss` and each unweighted value.

    A term of weight 0 is neither computed nor logged.

    Raises ValueError if no term is left or two share a name.
    """
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"loss terms need distinct names, got {names}")
    active = [term for term in terms if term.weight != 0]
    if not active:
        raise ValueError(f"every loss term has weight 0: {names}")
    outputs = [(term, _as_output(term.compute())) for term in active]
    first, *rest = [term.weight * output.loss for term, output in outputs]
    total = sum(rest, start=first)
    metrics = {"loss": total.detach()}
    for term, output in outputs:
        metrics |= {term.name: output.loss.detach(), **output.metrics}
    return StepOutput(total, metrics)


def _as_output(value: Tensor | StepOutput) -> StepOutput:
    return value if isinstance(value, StepOutput) else StepOutput(value)
