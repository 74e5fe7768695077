"""McWGAN's two updates, what a step consists of, and what it learns from 32 pairs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from namd.losses.reconstruction import reconstruction_loss
from namd.methods.mcwgan import training
from namd.methods.mcwgan.method import stages
from namd.methods.mcwgan.networks import FrozenFeatures, build_resnet, predict
from namd.methods.mcwgan.settings import McWGANConfig, ResNetSettings, WganSettings
from namd.methods.mcwgan.training import CRITIC, GENERATOR, GanBatch, McWGAN, updates
from namd.methods.shared.pair_set import PairBatch
from namd.models.initialisation import initialised_from
from namd.pipeline.run_configuration import resolve
from namd.train.fit import fit
from namd.train.loop import DivergedError, TrainState, train
from namd.train.world import LocalWorld
from tests.contexts import open_context
from tests.methods import made

SMALL = WganSettings(
    block_out_channels=(8, 16),
    norm_num_groups=4,
    critic_channels=(4, 8),
    critic_steps=2,
    feature_weight=0.0,
    batch_size=32,
    learning_rate=3e-3,
    validate_every=2,
    checkpoint_every=2,
    keep="last",
)


def objective(settings: WganSettings = SMALL, features: FrozenFeatures | None = None) -> McWGAN:
    with initialised_from("test", 1):
        return McWGAN(settings, 16, features)


def pairs() -> PairBatch:
    """32 baselines with a square; its follow-up is brighter if the baseline is."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.uniform(-0.9, -0.4, (32, 1, 16, 16)).astype(np.float32))
    before[:, :, 5:11, 5:11] += 0.5
    return PairBatch(before, before + 0.4 * (before > -0.3))


def batch(number: int = 0) -> GanBatch:
    mix = np.random.default_rng(number).random(32, np.float32)
    return GanBatch(pairs(), torch.from_numpy(mix))


def state(model: McWGAN, num_steps: int = 4) -> TrainState:
    made_of = model.settings
    world = LocalWorld()
    return TrainState("test", model, made_of, num_steps, world, "fp32", 1, updates=updates(made_of))


def test_each_loss_is_the_weighted_sum_of_its_terms():
    with initialised_from("test", 3):
        phi = FrozenFeatures(build_resnet((1, 1, 1, 1)))
    weights = {"l1_weight": 2.0, "ssim_weight": 0.5, "feature_weight": 3.0}
    heavy = dataclasses.replace(SMALL, **weights, adversarial_weight=0.7, penalty_weight=11.0)
    model = objective(heavy, phi)
    torch.nn.init.normal_(model.generator.conv_out.weight, std=0.05)
    output = model(batch(), GENERATOR)
    terms = {name: float(value) for name, value in output.metrics.items()}
    drawn = predict(model.generator, pairs().baseline).detach()
    assert terms["adversarial"] == pytest.approx(
        -float(model.critic(drawn).detach().mean()), rel=1e-4
    )
    assert terms["l1"] == pytest.approx(float((drawn - pairs().followup).abs().mean()), rel=1e-4)
    wanted = 2 * terms["l1"] + 0.5 * terms["structural"] + 3 * terms["feature"]
    likeness = float(model.likeness(pairs().followup, drawn))
    assert likeness == pytest.approx(wanted, rel=1e-4)
    assert float(output.loss.detach()) == pytest.approx(
        wanted + 0.7 * terms["adversarial"], rel=1e-4
    )
    output = model(batch(), CRITIC)
    terms = {name: float(value) for name, value in output.metrics.items()}
    wanted = -terms["wasserstein"] + 11 * terms["gradient_penalty"]
    assert float(output.loss.detach()) == pytest.approx(wanted, rel=1e-4)


def test_the_critic_s_loss_leaves_the_generator_without_a_gradient():
    model = objective()
    model(batch(), CRITIC).loss.backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert any(parameter.grad is not None for parameter in model.critic.parameters())
    model(batch(), GENERATOR).loss.backward()
    assert any(parameter.grad is not None for parameter in model.generator.parameters())


def test_a_step_is_so_many_updates_of_the_critic_then_one_of_the_generator(monkeypatch):
    model, seen = objective(), []
    forward = McWGAN.forward

    def noted(self, one, update):
        seen.append(update)
        return forward(self, one, update)

    monkeypatch.setattr(McWGAN, "forward", noted)
    numbers = []
    list(train(state(model, 2), lambda number: numbers.append(number) or batch(number)))
    assert seen == [CRITIC, CRITIC, GENERATOR] * 2
    assert numbers == list(range(6))


def test_without_its_verdict_no_critic_is_trained():
    alone = dataclasses.replace(SMALL, adversarial_weight=0.0)
    assert [update.name for update in updates(alone)] == [GENERATOR]
    assert objective(alone).critic is None
    (first,) = train(state(objective(alone), 1), batch)
    assert "wasserstein" not in first.metrics


def test_the_critic_s_learning_rate_is_the_generator_s_unless_it_is_stated():
    assert updates(SMALL)[0].settings.learning_rate == SMALL.learning_rate
    slow = dataclasses.replace(SMALL, critic_learning_rate=1e-5)
    assert updates(slow)[0].settings.learning_rate == 1e-5
    assert updates(slow)[1].settings is None


def test_a_generator_of_squares_of_pixels_puts_each_change_where_it_belongs():
    """Its last layer adds 0.1 n at pixel n of each square of 2 x 2, row by row."""
    model = objective(dataclasses.replace(SMALL, pixel_unshuffle=2))
    with torch.no_grad():
        model.generator.conv_out.bias.copy_(torch.arange(4) / 10)
        change = predict(model.generator, pairs().baseline) - pairs().baseline
    square = torch.tensor([[0.0, 0.1], [0.2, 0.3]]).repeat(8, 8)
    assert torch.allclose(change, square.expand_as(change), atol=1e-6)


def test_it_overfits_32_pairs_and_needs_their_baselines():
    quick = {"critic_steps": 1, "learning_rate": 5e-3, "betas": (0.9, 0.99)}
    model = objective(dataclasses.replace(SMALL, **quick))
    copied = float(reconstruction_loss(pairs().baseline, pairs().followup))
    first = predict(model.generator, pairs().baseline)
    assert torch.equal(first, pairs().baseline)
    list(train(state(model, 50), batch))
    with torch.no_grad():
        learned = reconstruction_loss(predict(model.generator, pairs().baseline), pairs().followup)
        other = predict(model.generator, pairs().baseline.roll(1, 0))
        assert float(learned) < 0.7 * copied
        assert float(reconstruction_loss(other, pairs().followup)) > 2 * float(learned)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    def trained(folder: Path, stop_after: int | None) -> McWGAN:
        model = objective()
        for step in fit(state(model), batch, None, folder, log_every=1):
            if step.index == stop_after:
                break
        return model

    whole = trained(tmp_path / "whole", None)
    broken = trained(tmp_path / "parts", 3)
    resumed = trained(tmp_path / "parts", None)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert not torch.equal(broken.generator.conv_out.weight, whole.generator.conv_out.weight)


def test_a_value_that_is_no_number_is_refused():
    def poisoned(number: int) -> GanBatch:
        one = batch(number)
        one.pairs.followup[3] = float("nan")
        return one

    with pytest.raises(DivergedError, match="not finite at step 0"):
        list(train(state(objective()), poisoned))


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """What stage `wgan` trains on, over crops that say whose they are."""
    size = (f"image.size={made.SIZE}", f"judge.architecture.image_size={made.SIZE}")
    own = ("wgan.feature_weight=0", "wgan.batch_size=6", "image.rotations=none")
    config = resolve("tiny", None, ["method=mcwgan", *size, *own]).config
    made.cohort().write(tmp_path / "cohort")
    (tmp_path / "out").mkdir()
    context = open_context(
        settings=config,
        values={},
        cohort_path=tmp_path / "cohort",
        inputs={},
        outputs={None: tmp_path / "out"},
        checkpoints=tmp_path,
        world=LocalWorld(),
        warn=pytest.fail,
    )
    seen = {}

    def fit(state, batches, validate, folder):
        seen.update(state=state, batches=batches, validate=validate)
        return iter(())

    monkeypatch.setattr(training, "fit", fit)
    list(training.run(context))
    return seen


def test_it_learns_from_train_pairs_and_each_baseline_has_its_own_followup(noted):
    cases = made.FOLLOWED["train"]
    seen = []
    for number in range(len(cases)):
        one = noted["batches"](number)
        before = made.which(one.pairs.baseline)
        assert made.which(one.pairs.followup) == [case + 0.5 for case in before]
        assert (one.mix >= 0).all()
        assert (one.mix < 1).all()
        seen += before
    assert sorted(seen) == sorted([*cases] * 6)
    assert not torch.equal(noted["batches"](0).mix, noted["batches"](1).mix)
    assert torch.equal(noted["batches"](1).mix, noted["batches"](1).mix)


def test_it_is_validated_on_validation_pairs_alone(noted):
    """An untrained generator copies: the error is the 30 HU between the two."""
    metrics = noted["validate"]()
    wanted = 10 * np.log10(4 / (30 / 700) ** 2)
    assert metrics["validation_psnr"] == pytest.approx(wanted, rel=0.02)
    assert 0 < metrics["validation_ssim"] < 1
    loss = 30 / 700 + 1 - metrics["validation_ssim"]
    assert metrics["validation_loss"] == pytest.approx(loss, rel=0.02)


def test_no_resnet_is_trained_unless_its_features_count():
    def families(config: McWGANConfig) -> list[str]:
        return [stage.family for stage in stages(config)][:2]

    assert families(McWGANConfig()) == ["resnet", "wgan"]
    without = McWGANConfig(wgan=WganSettings(feature_weight=0.0))
    assert families(without) == ["wgan", "judge"]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"critic_channels": ()}, "critic_channels names at least one level"),
        ({"block_out_channels": (12,)}, "multiples of norm_num_groups 8, not 12"),
        ({"critic_steps": 0}, "critic_steps is 1 or more, not 0"),
        ({"critic_learning_rate": 0.0}, "critic_learning_rate is above 0 or null"),
        ({"penalty_weight": -1.0}, "penalty_weight is 0 or more, not -1.0"),
        ({"l1_weight": 0.0, "ssim_weight": 0.0, "feature_weight": 0.0}, "whose follow-up"),
    ],
)
def test_an_impossible_training_is_refused(values, word):
    with pytest.raises(ValueError, match=word):
        WganSettings(**values)
    assert WganSettings(l1_weight=0.0).ssim_weight == 1


def test_images_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(ValueError, match=r"halved 7 times, as wgan\.critic_channels"):
        McWGANConfig(wgan=WganSettings(critic_channels=(8,) * 7))
    with pytest.raises(ValueError, match=r"halved 2 times after wgan\.pixel_unshuffle 32"):
        McWGANConfig(wgan=WganSettings(pixel_unshuffle=32))
    with pytest.raises(ValueError, match="blocks are 1 or more"):
        ResNetSettings(blocks=(2, 0, 2, 2))
