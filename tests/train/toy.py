"""A training small enough to run many times: a linear map behind dropout."""

from pathlib import Path

import torch
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.losses.total import StepOutput
from namd.models.initialisation import initialised_from
from namd.train.fit import Progress, fit
from namd.train.loop import TrainState
from namd.train.order import CaseOrder
from namd.train.settings import TrainingSettings
from namd.train.world import LocalWorld

NUM_CASES, WIDTH = 20, 5


class ToyObjective(nn.Module):
    """`poison_at`: the step whose loss is NaN; `steep_at`: the one whose gradient alone is."""

    def __init__(self, dropout: float = 0.3, poison_at: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)
        self.dropout = nn.Dropout(dropout)
        self.poison_at = poison_at
        self.steep_at: int | None = None

    def forward(self, batch: tuple[int, Tensor]) -> StepOutput:
        step, rows = batch
        error = self.layer(self.dropout(rows))[:, 0] - rows.sum(1)
        loss = error.square().mean()
        if step == self.poison_at:
            loss = loss * float("nan")
        if step == self.steep_at:
            loss = loss + 0 * (0 * self.layer.weight.sum()).sqrt()  # 0, and its slope 0 * inf
        return StepOutput(loss, {"error": loss.detach()})


def rows() -> Tensor:
    return torch.from_numpy(generator("toy-rows").standard_normal((NUM_CASES, WIDTH), "float32"))


def state(settings: TrainingSettings, objective: ToyObjective | None = None) -> TrainState:
    with initialised_from("toy", 0):
        built = ToyObjective() if objective is None else objective
    return TrainState("toy", built, settings, settings.num_steps, LocalWorld(), "fp32", 0)


def run(
    training: TrainState, folder: Path, stop_after: int | None = None
) -> tuple[list[Progress], dict[str, Tensor]]:
    """Train; with `stop_after`, walk away after that many steps as a killed process would."""
    data = rows()
    order = CaseOrder("toy", 0, NUM_CASES, training.settings.batch_size)

    def validate() -> dict[str, float]:
        return {"validation_loss": float(training.objective((-1, data)).loss)}

    seen = []
    steps = fit(training, lambda step: (step, data[order.at(step)]), validate, folder, log_every=1)
    for progress in steps:
        seen.append(progress)
        if stop_after is not None and progress.index >= stop_after:
            steps.close()
            break
    return seen, {k: v.detach().clone() for k, v in training.objective.named_parameters()}
