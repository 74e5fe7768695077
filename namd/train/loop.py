"""THE training loop: a generator of steps. Reporting, files and stages are its caller's matter."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from namd.config.errors import NotFiniteError
from namd.config.seeding import derive_seed
from namd.losses.total import StepOutput
from namd.train.batch_norm import with_global_batch_norm
from namd.train.settings import TrainingSettings
from namd.train.workers import World

Objective = nn.Module
"""A module whose forward(batch) returns a StepOutput; its trainable parameters are trained.

With several updates it is forward(batch, name of the update).
"""


class DivergedError(NotFiniteError):
    """A loss or a gradient is not finite. Names which (`what`), the step and every term."""

    def __init__(
        self,
        name: str,
        step: int,
        terms: Mapping[str, float],
        last_checkpoint: int | None,
        what: str = "loss",
    ) -> None:
        listed = ", ".join(f"{key} {value:.4g}" for key, value in terms.items())
        kept = (
            f"last good checkpoint: step {last_checkpoint}"
            if last_checkpoint
            else "no checkpoint yet"
        )
        super().__init__(f"{name}: {what} is not finite at step {step} ({listed}); {kept}")
        self.name = name
        self.step = step
        self.terms = dict(terms)
        self.last_checkpoint = last_checkpoint
        self.what = what

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Let it cross process borders as itself."""
        return DivergedError, (self.name, self.step, self.terms, self.last_checkpoint, self.what)


@dataclass(frozen=True)
class TrainedStep:
    """What one optimiser step measured: its index (1-based) and its terms.

    The terms stay tensors: reading each at every step would make a GPU wait.
    `leaving`: some worker was asked to stop, and all of them know.
    """

    index: int
    metrics: dict[str, Tensor]
    leaving: bool = False


def adamw(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimiser that trains everything here."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        # One pass over each tensor: unfused, its many passes weigh on a small net on a CPU.
        fused=True,
    )


@dataclass(frozen=True)
class Update:
    """One optimiser's part of a training step.

    Attributes:
        name: Says which loss the objective returns; empty for a training with one optimiser.
        parts: Attributes of the objective whose trainable parameters it changes; empty: all.
        repeats: How often it is made in a step, each time on a batch of its own.
        settings: Learning rate, betas and clipping; None: the training's.
    """

    name: str = ""
    parts: tuple[str, ...] = ()
    repeats: int = 1
    settings: TrainingSettings | None = None

    def __post_init__(self) -> None:
        """Reject an update that is never made."""
        if self.repeats < 1:
            raise ValueError(f"update {self.name!r}: repeats is 1 or more, not {self.repeats}")

    def owns(self, parameter: str) -> bool:
        """Return whether it changes the objective's parameter of this dotted name."""
        return not self.parts or parameter.partition(".")[0] in self.parts

    def measured(self, name: str) -> str:
        """Return the name under which this optimiser's own measurements are logged."""
        return f"{self.name}_{name}" if self.name else name


@dataclass
class TrainState:
    """All that a training carries from step to step.

    Attributes:
        name: Of the training, for messages.
        objective: Module from batch to StepOutput.
        settings: Learning rates, clipping, averaging.
        num_steps: Where the training ends.
        world: The workers.
        precision: `fp32` or `bf16` (autocast).
        seed: Feeds torch's global generator, which dropout alone uses.
        make_optimizer: From trained parameters to their optimiser.
        updates: What a step consists of, in order; each has an optimiser of its own.
    """

    name: str
    objective: Objective
    settings: TrainingSettings
    num_steps: int
    world: World
    precision: str
    seed: int
    make_optimizer: Callable[[list[nn.Parameter], TrainingSettings], torch.optim.Optimizer] = adamw
    updates: tuple[Update, ...] = (Update(),)
    step: int = 0
    last_checkpoint: int | None = None
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    average: dict[str, Tensor] | None = field(init=False, default=None)
    wrapped: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        """Build the optimisers and, for several workers, the wrapper that averages gradients.

        Raises ValueError unless every trainable parameter belongs to exactly one update.
        """
        self._require_one_owner_each()
        self.optimizers = [
            self.make_optimizer(self.parameters_of(update), update.settings or self.settings)
            for update in self.updates
        ]
        self.wrapped = self.objective
        if self.world.size > 1:
            self.objective = with_global_batch_norm(self.objective)
            self.wrapped = DistributedDataParallel(self.objective, find_unused_parameters=True)
        if self.settings.ema_decay:
            self.average = {k: v.detach().clone() for k, v in self.trained().items()}

    def _require_one_owner_each(self) -> None:
        for name in self.trained():
            owners = [update.name for update in self.updates if update.owns(name)]
            if len(owners) != 1:
                raise ValueError(
                    f"{self.name}: parameter {name} belongs to {len(owners)} updates, not one"
                )

    @property
    def batches_per_step(self) -> int:
        """How many batches a step takes."""
        return sum(update.repeats for update in self.updates)

    def parameters_of(self, update: Update) -> list[nn.Parameter]:
        """Return the trainable parameters that an update changes."""
        return [
            parameter
            for name, parameter in self.objective.named_parameters()
            if parameter.requires_grad and update.owns(name)
        ]

    def trained(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name."""
        return {k: v for k, v in self.objective.named_parameters() if v.requires_grad}

    def kept(self) -> dict[str, Tensor]:
        """Return a copy of what to validate and keep: averaged weights if averaging is on."""
        source = self.average if self.average is not None else self.trained()
        return {k: v.detach().cpu().clone() for k, v in (source | self.buffers()).items()}

    def buffers(self) -> dict[str, Tensor]:
        """Return what training changes without a gradient, such as a batch norm's statistics."""
        return dict(self.objective.named_buffers())

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Write weights, and buffers where given, into the objective in place."""
        places = self.trained() | self.buffers()
        with torch.no_grad():
            for name, value in weights.items():
                places[name].copy_(value)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Carry the averaged weights inside this block."""
        if self.average is None:
            yield
            return
        trained = {k: v.detach().clone() for k, v in self.trained().items()}
        self.put(self.average)
        yield
        self.put(trained)

    def shared_state(self) -> dict[str, Any]:
        """Return what all ranks have in common, not copied: it is written before training goes on.

        A copy of the optimisers' moments would be two thirds of the memory of a large network more.
        """
        return {
            "step": self.step,
            "weights": {k: v.detach().cpu() for k, v in (self.trained() | self.buffers()).items()},
            "optimizers": [each.state_dict() for each in self.optimizers],
            "average": self.average,
        }

    def release(self) -> None:
        """Let go of gradients and optimisers' moments: three quarters of a training's memory."""
        self.objective.zero_grad(set_to_none=True)
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def own_state(self) -> dict[str, Any]:
        """Return this rank's dropout state."""
        state: dict[str, Any] = {"cpu": torch.random.get_rng_state()}
        if self.world.device.startswith("cuda"):
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def restore(self, shared: Mapping[str, Any], own: Mapping[str, Any] | None) -> None:
        """Continue from saved state, bit for bit; a rank that is new has no dropout state yet."""
        self.put(shared["weights"])
        for optimizer, saved in zip(self.optimizers, shared["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = self.last_checkpoint = int(shared["step"])
        if self.average is not None:
            self.average = {k: v.to(self.world.device) for k, v in shared["average"].items()}
        if own is None:
            self.seed_dropout()
            return
        torch.random.set_rng_state(own["cpu"])
        if "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"])

    def seed_dropout(self) -> None:
        """Set torch's global state, which dropout alone draws from, for this training and rank."""
        where = (self.step,) if self.step else ()
        seed = derive_seed("dropout", self.name, self.seed, self.world.rank, *where) % 2**63
        torch.default_generator.manual_seed(seed)
        if self.world.device.startswith("cuda"):
            torch.cuda.manual_seed(seed)


def _never() -> bool:
    return False


def train(
    state: TrainState, batches: Callable[[int], Any], leaving: Callable[[], bool] = _never
) -> Iterator[TrainedStep]:
    """Train from `state.step` to `state.num_steps`, yielding after every step.

    `batches(number)` returns this rank's part of a global batch; step s takes the numbers from
    s * `state.batches_per_step` on, one for each update. `leaving` says whether this worker was
    asked to stop.

    Raises DivergedError, before an optimiser sees it, at a loss or a gradient that is not finite
    on any worker.
    """
    while state.step < state.num_steps:
        state.objective.train()
        metrics: dict[str, Tensor] = {}
        stopping = False
        number = state.step * state.batches_per_step
        for update, optimizer in zip(state.updates, state.optimizers, strict=True):
            for _ in range(update.repeats):
                measured, asked = _updated(state, update, optimizer, batches(number), leaving)
                metrics |= measured
                stopping = stopping or asked
                number += 1
        state.step += 1
        _average(state)
        yield TrainedStep(state.step, metrics, stopping or (state.world.size == 1 and leaving()))


def _updated(
    state: TrainState,
    update: Update,
    optimizer: torch.optim.Optimizer,
    batch: Any,  # noqa: ANN401 - the objective's
    leaving: Callable[[], bool],
) -> tuple[dict[str, Tensor], bool]:
    """Make one update; return what it measured, and whether any worker was asked to stop."""
    settings = update.settings or state.settings
    rate = settings.rate_at(state.step, state.num_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    with autocast(state.precision, state.world.device):
        output: StepOutput = state.wrapped(batch, *([update.name] if update.name else []))
    # Of all parameters: a generator's loss leaves gradients in its critic.
    state.objective.zero_grad(set_to_none=True)
    output.loss.backward()
    # Without a limit the norm is only measured: every gradient is multiplied by 1.
    limit = math.inf if settings.max_norm is None else settings.max_norm
    changed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(changed, limit).detach()
    broken, asked = _agreed(state.world, output.loss, norm, leaving)
    if broken is not None:
        terms = {name: float(value) for name, value in output.metrics.items()}
        raise DivergedError(state.name, state.step, terms, state.last_checkpoint, broken)
    metrics = dict(output.metrics) | {update.measured("learning_rate"): torch.tensor(rate)}
    if settings.max_norm is not None:
        metrics[update.measured("gradient_norm")] = norm
    optimizer.step()
    return metrics, asked


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a forward pass runs at a precision."""
    if precision == "bf16":
        return torch.autocast(device.split(":")[0], torch.bfloat16)
    return contextlib.nullcontext()


def _agreed(
    world: World, loss: Tensor, norm: Tensor, leaving: Callable[[], bool]
) -> tuple[str | None, bool]:
    """Return what is not finite on some worker, if anything, and whether any was asked to stop.

    A worker that stopped on its own would leave the others waiting for its gradients.
    """
    finite = torch.isfinite(torch.stack([loss.detach().float(), norm.float()]))
    told = False
    if world.size > 1:
        worst = torch.cat([~finite, torch.tensor([leaving()]).to(finite.device)]).to(torch.int32)
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        finite, told = worst[:2] == 0, bool(worst[2])
    sound_loss, sound_gradient = finite.tolist()
    if not sound_loss:
        return "loss", told
    return None if sound_gradient else "gradient", told


def _average(state: TrainState) -> None:
    if state.average is None:
        return
    with torch.no_grad():
        for name, parameter in state.trained().items():
            state.average[name].lerp_(parameter, 1 - state.settings.ema_decay)
