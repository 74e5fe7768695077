"""Which weights are validated and kept: averages, the rules of `keep`, modes, rates, clipping."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from namd.losses.total import StepOutput
from namd.train.checkpoints import Checkpoints
from namd.train.fit import Kept, fit
from namd.train.loop import TrainState, adamw, train
from namd.train.order import CaseOrder
from namd.train.settings import TrainingSettings
from namd.train.world import LocalWorld

PLAIN = TrainingSettings(
    num_steps=4, batch_size=1, learning_rate=0.5, weight_decay=0.0, validate_every=1, keep="last"
)


class Downhill(nn.Module):
    """One weight under a loss of slope `slope`; notes its weight, mode and batches."""

    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.slope = slope
        self.noted: list[tuple[float, bool]] = []

    def forward(self, batch: int) -> StepOutput:
        self.noted.append((float(self.weight.detach()), self.training))
        return StepOutput(self.slope * self.weight.sum())


def sgd(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=settings.learning_rate)


def state(settings: TrainingSettings, slope: float = 1.0) -> TrainState:
    return TrainState(
        "toy", Downhill(slope), settings, settings.num_steps, LocalWorld(), "fp32", 0, sgd
    )


def test_the_average_follows_the_weights_by_one_less_the_decay(tmp_path: Path):
    training = state(dataclasses.replace(PLAIN, ema_decay=0.75))
    validated = []

    def validate() -> dict[str, float]:
        weight = training.objective.weight
        validated.append((float(weight), training.objective.training))
        return {"validation_loss": 1.0}

    list(fit(training, lambda step: step, validate, tmp_path))
    weights, average, wanted = [-0.5, -1.0, -1.5, -2.0], 0.0, [0.0]
    for weight in weights:
        average = 0.75 * average + 0.25 * weight
        wanted.append(average)
    assert [value for value, _ in validated] == pytest.approx(wanted)
    assert not any(mode for _, mode in validated)
    assert training.objective.noted == [(w, True) for w in (0.0, *weights[:-1])]
    assert float(training.objective.weight.detach()) == pytest.approx(wanted[-1])
    assert not training.objective.training


def test_without_an_average_the_weights_themselves_are_validated_and_kept(tmp_path: Path):
    training = state(PLAIN)
    list(fit(training, lambda step: step, None, tmp_path))
    assert float(training.objective.weight.detach()) == -2.0


@pytest.mark.parametrize(
    ("rule", "tolerance", "wanted"),
    [
        ("best", 0.0, 2),
        ("before_rise", 0.0, 2),
        ("before_rise", 0.06, 3),
        ("before_rise", 0.2, 4),
        ("last", 0.0, 5),
    ],
)
def test_each_rule_keeps_its_own_step(rule: str, tolerance: float, wanted: int):
    kept = Kept()
    for step, loss in enumerate((4.0, 2.0, 1.0, 1.05, 1.15, 3.0)):
        kept.offer(step, loss, rule, tolerance, lambda at=step: {"at": torch.tensor(at)})
    assert kept.step == wanted
    assert int(kept.weights["at"]) == wanted
    assert kept.history[-1] == (5, 3.0)


@pytest.mark.parametrize(("keep", "wanted"), [("best", -1.0), ("last", -2.0)])
def test_the_best_step_is_put_back_at_the_end_and_the_last_is_left(
    tmp_path: Path, keep: str, wanted: float
):
    losses = iter((5.0, 4.0, 1.0, 4.0, 5.0))
    training = state(dataclasses.replace(PLAIN, keep=keep))
    list(fit(training, lambda step: step, lambda: {"validation_loss": next(losses)}, tmp_path))
    assert float(training.objective.weight.detach()) == wanted


def test_a_step_takes_the_rate_of_its_number_and_logs_it(tmp_path: Path):
    warm = dataclasses.replace(PLAIN, warmup_steps=2, start_learning_rate=0.1)
    training = state(warm)
    steps = list(train(training, lambda step: step))
    rates = [float(step.metrics["learning_rate"]) for step in steps]
    assert rates == pytest.approx([0.1, 0.3, 0.5, 0.5])
    assert float(training.objective.weight.detach()) == pytest.approx(-sum(rates))


def test_the_cosine_falls_to_its_end():
    cosine = dataclasses.replace(PLAIN, lr_schedule="cosine", min_learning_rate=0.1)
    assert [cosine.rate_at(step, 4) for step in (0, 2, 4)] == pytest.approx([0.5, 0.3, 0.1])


def test_gradients_are_clipped_and_never_added_up():
    training = state(dataclasses.replace(PLAIN, max_norm=1.0), slope=4.0)
    (first, *_) = list(train(training, lambda step: step))
    assert float(first.metrics["gradient_norm"]) == pytest.approx(4.0)
    assert float(training.objective.weight.detach()) == pytest.approx(-2.0, abs=1e-5)
    free = state(PLAIN, slope=4.0)
    list(train(free, lambda step: step))
    assert float(free.objective.weight.detach()) == pytest.approx(-8.0)


def test_the_optimiser_is_adamw_with_the_stated_numbers():
    settings = dataclasses.replace(PLAIN, betas=(0.5, 0.9), weight_decay=0.02)
    (group,) = adamw([nn.Parameter(torch.zeros(1))], settings).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.5, 0.9), 0.02)


@pytest.mark.parametrize(("cases", "steps"), [(50, 60), (48, 60), (3, 5)])
def test_epochs_are_passes_over_the_training_set(cases: int, steps: int):
    assert dataclasses.replace(PLAIN, batch_size=4, num_epochs=5).steps_for(cases) == steps
    assert PLAIN.steps_for(cases) == 4


def test_every_pass_is_shuffled_anew():
    order = CaseOrder("toy", 0, 12, 12)
    passes = [order.at(step).tolist() for step in range(3)]
    assert all(sorted(each) == list(range(12)) for each in passes)
    assert passes[0] != passes[1] != passes[2]


def test_the_two_newest_checkpoints_stay(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, {"step": step}, {"own": step})
    assert checkpoints.load() == (3, {"step": 3}, {"own": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rank0-2.pt",
        "rank0-3.pt",
        "shared-2.pt",
        "shared-3.pt",
    ]
