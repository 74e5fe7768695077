import dataclasses
import signal
from pathlib import Path

import pytest
import torch

from namd.config.errors import InputError
from namd.train.checkpoints import Checkpoints
from namd.train.fit import Progress, fit
from namd.train.loop import DivergedError
from namd.train.settings import TrainingSettings
from tests.train import toy

SETTINGS = TrainingSettings(
    num_steps=12,
    batch_size=4,
    learning_rate=0.05,
    validate_every=3,
    checkpoint_every=4,
    warmup_steps=2,
    lr_schedule="cosine",
    max_norm=1.0,
    ema_decay=0.9,
)


@pytest.mark.parametrize("keep", ["best", "before_rise", "last"])
@pytest.mark.parametrize("stop_after", [1, 4, 7, 11])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, keep: str, stop_after: int):
    settings = dataclasses.replace(SETTINGS, keep=keep)
    _, whole = toy.run(toy.state(settings), tmp_path / "whole")
    toy.run(toy.state(settings), tmp_path / "cut", stop_after=stop_after)
    _, resumed = toy.run(toy.state(settings), tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resume_that_forgets_the_dropout_state_differs(tmp_path: Path, monkeypatch):
    _, whole = toy.run(toy.state(SETTINGS), tmp_path / "whole")
    toy.run(toy.state(SETTINGS), tmp_path / "cut", stop_after=7)
    monkeypatch.setattr(torch.random, "set_rng_state", lambda _state: None)
    _, resumed = toy.run(toy.state(SETTINGS), tmp_path / "cut")
    assert not torch.equal(whole["layer.weight"], resumed["layer.weight"])


def test_sigterm_saves_and_leaves(tmp_path: Path):
    _, whole = toy.run(toy.state(SETTINGS), tmp_path / "whole")
    training = toy.state(SETTINGS)

    def terminate_at_five(_module, arguments):
        if arguments[0][0] == 5:
            signal.raise_signal(signal.SIGTERM)

    training.objective.register_forward_pre_hook(terminate_at_five)
    with pytest.raises(SystemExit) as left:
        toy.run(training, tmp_path / "cut")
    assert left.value.code == 143
    found = Checkpoints(tmp_path / "cut").load()
    assert found is not None
    assert found[0] == 6
    _, resumed = toy.run(toy.state(SETTINGS), tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_loss_that_is_not_finite_names_step_terms_and_checkpoint(tmp_path: Path):
    training = toy.state(SETTINGS, toy.ToyObjective(poison_at=6))
    with pytest.raises(DivergedError, match=r"toy: loss is not finite at step 6 \(error .*step 4"):
        toy.run(training, tmp_path)
    toy.run(toy.state(SETTINGS, toy.ToyObjective()), tmp_path / "sound")


@pytest.mark.parametrize("max_norm", [1.0, None])
def test_a_gradient_that_is_not_finite_reaches_no_weight_and_no_checkpoint(
    tmp_path: Path, max_norm: float | None
):
    settings = dataclasses.replace(SETTINGS, max_norm=max_norm)
    _, whole = toy.run(toy.state(settings), tmp_path / "whole")
    training = toy.state(settings)
    training.objective.steep_at = 7
    with pytest.raises(DivergedError, match=r"gradient is not finite at step 7 \(error \d.*step 4"):
        toy.run(training, tmp_path / "cut")
    assert all(value.isfinite().all() for value in training.trained().values())
    _, resumed = toy.run(toy.state(settings), tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_measuring_the_gradient_without_a_limit_changes_no_number(tmp_path: Path):
    free = dataclasses.replace(SETTINGS, max_norm=None)
    steps, measured = toy.run(toy.state(free), tmp_path / "free")
    assert not any("gradient_norm" in step.metrics for step in steps)
    _, wide = toy.run(toy.state(dataclasses.replace(free, max_norm=1e9)), tmp_path / "wide")
    _, narrow = toy.run(toy.state(SETTINGS), tmp_path / "narrow")
    assert torch.equal(measured["layer.weight"], wide["layer.weight"])
    assert not torch.equal(measured["layer.weight"], narrow["layer.weight"])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_validation_that_is_not_finite_ends_the_training(tmp_path: Path, keep: str):
    settings = dataclasses.replace(SETTINGS, keep=keep)

    def trained(losses: list[float], name: str) -> list[Progress]:
        found, data = iter(losses), toy.rows()
        training = toy.state(settings)
        return list(
            fit(
                training,
                lambda step: (step, data),
                lambda: {"validation_loss": next(found)},
                tmp_path / name,
            )
        )

    with pytest.raises(DivergedError, match=r"validation_loss is not finite at step 6 .*step 4"):
        trained([2.0, 1.0, float("nan"), 1.0, 1.0], "broken")
    assert trained([2.0, 1.0, 1.5, 1.0, 1.0], "sound")[-1].index == 12


def test_best_keeps_the_lowest_validation_and_last_does_not(tmp_path: Path):
    wild = dataclasses.replace(SETTINGS, learning_rate=0.8, ema_decay=0.0, max_norm=None)
    steps, kept = toy.run(toy.state(wild), tmp_path / "best")
    losses = [s.metrics["validation_loss"] for s in steps if "validation_loss" in s.metrics]
    training = toy.state(wild)
    training.put(kept)
    training.objective.eval()
    measured = float(training.objective((-1, toy.rows())).loss.detach())
    assert measured == pytest.approx(min(losses))
    _, last = toy.run(toy.state(dataclasses.replace(wild, keep="last")), tmp_path / "last")
    assert not torch.equal(last["layer.weight"], kept["layer.weight"])


def test_a_torn_checkpoint_is_named_not_believed(tmp_path: Path):
    toy.run(toy.state(SETTINGS), tmp_path, stop_after=9)
    newest = max(tmp_path.glob("shared-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(InputError, match=newest.name):
        toy.run(toy.state(SETTINGS), tmp_path)


def test_zero_steps_leave_the_initial_weights(tmp_path: Path):
    settings = dataclasses.replace(SETTINGS, num_steps=0)
    training = toy.state(settings)
    before = {name: value.clone() for name, value in training.trained().items()}
    _, after = toy.run(training, tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)
