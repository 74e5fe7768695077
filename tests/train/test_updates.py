"""Trainings with two optimisers: a critic with several steps to each of its generator's."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from namd.losses.total import StepOutput
from namd.models.initialisation import initialised_from
from namd.train.fit import fit
from namd.train.loop import DivergedError, TrainState, Update
from namd.train.order import CaseOrder
from namd.train.settings import TrainingSettings
from namd.train.world import LocalWorld
from tests.train.toy import NUM_CASES, WIDTH, rows

SETTINGS = TrainingSettings(
    num_steps=9,
    batch_size=4,
    learning_rate=0.02,
    validate_every=3,
    checkpoint_every=4,
    max_norm=1.0,
)
CRITIC = Update("critic", ("critic",), 3, dataclasses.replace(SETTINGS, learning_rate=0.05))
GENERATOR = Update("generator", ("generator",))


class Adversarial(nn.Module):
    """A linear generator behind dropout and a linear critic; notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(WIDTH, WIDTH)
        self.critic = nn.Linear(WIDTH, 1)
        self.dropout = nn.Dropout(0.3)
        self.asked: list[tuple[str, int]] = []
        self.poison_at: int | None = None

    def forward(self, batch: tuple[int, Tensor], update: str) -> StepOutput:
        number, real = batch
        self.asked.append((update, number))
        drawn = self.generator(self.dropout(real))
        if update == "critic":
            loss = self.critic(drawn.detach()).mean() - self.critic(real).mean()
        else:
            loss = (drawn - real).abs().mean() - 0.1 * self.critic(drawn).mean()
        if number == self.poison_at:
            loss = loss * float("nan")
        return StepOutput(loss, {f"{update}_loss": loss.detach()})


def state(updates: tuple[Update, ...] = (CRITIC, GENERATOR)) -> TrainState:
    with initialised_from("adversarial", 0):
        built = Adversarial()
    return TrainState(
        "toy", built, SETTINGS, SETTINGS.num_steps, LocalWorld(), "fp32", 0, updates=updates
    )


def run(training: TrainState, folder: Path, stop_after: int | None = None) -> dict[str, Tensor]:
    data = rows()
    order = CaseOrder("toy", 0, NUM_CASES, SETTINGS.batch_size)

    def validate() -> dict[str, float]:
        drawn = training.objective.generator(data)
        return {"validation_loss": float((drawn - data).abs().mean())}

    steps = fit(training, lambda number: (number, data[order.at(number)]), validate, folder)
    for progress in steps:
        if stop_after is not None and progress.index >= stop_after:
            steps.close()
            break
    return {k: v.detach().clone() for k, v in training.objective.named_parameters()}


def test_every_update_has_its_own_batch_in_order(tmp_path: Path):
    training = state()
    run(training, tmp_path)
    wanted = [("critic", 0), ("critic", 1), ("critic", 2), ("generator", 3), ("critic", 4)]
    assert training.objective.asked[:5] == wanted
    assert len(training.objective.asked) == SETTINGS.num_steps * 4


def test_an_update_changes_its_own_parts_alone():
    for own, other in (("critic", "generator"), ("generator", "critic")):
        training = state()
        before = {k: v.detach().clone() for k, v in training.objective.named_parameters()}
        number = next(n for n, u in enumerate(training.updates) if u.name == own)
        output = training.objective((0, rows()[:4]), own)
        output.loss.backward()
        training.optimizers[number].step()
        after = dict(training.objective.named_parameters())
        changed = {k.partition(".")[0] for k in before if not torch.equal(before[k], after[k])}
        assert changed == {own}
        assert other not in changed


@pytest.mark.parametrize("stop_after", [3, 6])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, stop_after: int):
    whole = run(state(), tmp_path / "whole")
    run(state(), tmp_path / "cut", stop_after=stop_after)
    resumed = run(state(), tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resume_that_forgets_one_optimiser_differs(tmp_path: Path, monkeypatch):
    whole = run(state(), tmp_path / "whole")
    run(state(), tmp_path / "cut", stop_after=6)
    training = state()
    monkeypatch.setattr(training.optimizers[0], "load_state_dict", lambda _saved: None)
    resumed = run(training, tmp_path / "cut")
    assert not all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_each_update_has_its_own_rate_and_names_what_it_measures(tmp_path: Path):
    training = state()
    data = rows()[:4]
    (progress, *_) = list(fit(training, lambda n: (n, data), None, tmp_path, log_every=1))
    assert progress.metrics["critic_learning_rate"] == pytest.approx(0.05)
    assert progress.metrics["generator_learning_rate"] == pytest.approx(0.02)
    assert {"critic_gradient_norm", "generator_gradient_norm"} <= progress.metrics.keys()


def test_a_critic_that_is_not_finite_ends_the_training(tmp_path: Path):
    training = state()
    training.objective.poison_at = 5  # the second critic batch of step 1
    with pytest.raises(DivergedError, match=r"loss is not finite at step 1 \(critic_loss"):
        run(training, tmp_path)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ((CRITIC,), "generator.weight belongs to 0 updates"),
        ((CRITIC, GENERATOR, Update("all")), "belongs to 2 updates"),
    ],
)
def test_every_parameter_has_one_optimiser(updates, message):
    with pytest.raises(ValueError, match=message):
        state(updates)
    assert len(state().optimizers) == 2
