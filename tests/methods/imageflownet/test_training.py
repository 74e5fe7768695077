"""Both losses, the freeze, and a training: overfitted, interrupted and shared."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from namd.methods.imageflownet.settings import (
    ImageFlowNetConfig,
    ImageFlowNetSettings,
    SDESettings,
    UNetSettings,
)
from namd.methods.imageflownet.training import FILE, FlowBatch, batches, input_noise, psnr, run
from namd.methods.shared.pair_set import PairBatch, PairSet
from namd.methods.shared.settings import WeightedTerm
from namd.pipeline.run_configuration import resolve
from namd.train.world import LocalWorld
from tests.contexts import open_context
from tests.methods import made as crops
from tests.methods.imageflownet.made import SDE, UNET, flow, objective, pairs, white

OFF = WeightedTerm(0.0)


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    model(batch).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_losses_are_the_squared_errors_of_their_own_images():
    model, batch = objective(), flow()
    terms = model(batch).metrics
    with torch.no_grad():
        rebuilt = [
            model.network.reconstruct(x) - x for x in (batch.clean.baseline, batch.clean.followup)
        ]
        drawn = model.network.predict(batch.inputs.baseline, batch.noise)
    expected = (rebuilt[0].square().mean() + rebuilt[1].square().mean()) / 2
    assert torch.isclose(terms["reconstruction"], expected)
    assert torch.isclose(terms["prediction"], (drawn - batch.clean.followup).square().mean())
    assert torch.isclose(terms["loss"], terms["reconstruction"] + terms["prediction"])


def test_a_target_has_no_input_noise():
    model, clean = objective(), pairs()
    noisy = PairBatch(clean.baseline + 0.3, clean.followup + 0.3)
    model.network.reconstruct = lambda x: x
    model.network.predict = lambda x, _noise: x
    terms = model(FlowBatch(clean, noisy, white(32))).metrics
    assert torch.isclose(terms["reconstruction"], torch.tensor(0.09), atol=1e-6)
    error = (clean.baseline + 0.3 - clean.followup).square().mean()
    assert torch.isclose(terms["prediction"], error)


def test_a_frozen_unet_learns_from_the_reconstruction_alone():
    model, batch = objective(), flow()
    free = gradients(model, batch)
    model.note_reconstruction(25.1)
    frozen = gradients(model, batch)
    alone = objective(prediction=OFF)
    rebuilt = gradients(alone, batch)
    unet = [name for name in free if name.startswith("network.unet.")]
    sdes = [name for name in free if name.startswith("network.sdes.")]
    assert set(rebuilt) == set(unet)
    assert set(frozen) == set(free) == {*unet, *sdes}
    assert all(torch.allclose(frozen[name], rebuilt[name], atol=1e-6) for name in unet)
    assert all(torch.equal(frozen[name], free[name]) for name in sdes)
    # Twin: until then the prediction trains it too.
    assert not all(torch.allclose(free[name], rebuilt[name], atol=1e-6) for name in unet)


def test_the_unet_freezes_above_25_db_and_stays_frozen():
    model = objective()
    for value, frozen in ((10.0, 0), (25.0, 0), (25.01, 1), (10.0, 1)):
        model.note_reconstruction(value)
        assert int(model.frozen) == frozen
    never = objective(freeze_psnr=None)
    never.note_reconstruction(99.0)
    assert not never.frozen


def test_psnr_is_that_of_a_range_of_two():
    assert psnr(4.0) == 0
    assert psnr(0.04) == pytest.approx(20)


def test_it_overfits_32_pairs_and_needs_their_baselines():
    model, clean = objective(ema_decay=0.0), pairs()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(30):
        optimiser.zero_grad()
        model(flow(clean, seed=step)).loss.backward()
        optimiser.step()
    with torch.no_grad():
        drawn, other = (model.network.predict(clean.baseline, white(32, k)) for k in (90, 91))
        shuffled = model.network.predict(clean.baseline.roll(1, 0), white(32, 90))
    error, of_shuffled, of_copy = (
        float((image - clean.followup).square().mean())
        for image in (drawn, shuffled, clean.baseline)
    )
    assert error < 0.5 * of_copy
    assert of_shuffled > 2 * error
    assert not torch.allclose(drawn, other, atol=1e-3)


def stage(folder, *overrides, world=None):
    """The training's context at preset tiny, on crops made by hand."""
    sizes = (f"image.size={crops.SIZE}", f"judge.architecture.image_size={crops.SIZE}")
    values = (
        "imageflownet.num_steps=4",
        "imageflownet.checkpoint_every=2",
        "imageflownet.validate_every=2",
        *overrides,
    )
    folder.mkdir(exist_ok=True)
    for name in ("out", "checkpoints"):
        (folder / name).mkdir(exist_ok=True)
    if not (folder / "cohort").exists():
        crops.cohort().write(folder / "cohort")
    return open_context(
        settings=resolve("tiny", None, ["method=imageflownet", *sizes, *values]).config,
        values={},
        cohort_path=folder / "cohort",
        inputs={},
        outputs={None: folder / "out"},
        checkpoints=folder / "checkpoints",
        world=world or LocalWorld(),
        warn=lambda _line: None,
    )


def trained(folder, *overrides, until=None) -> dict[str, torch.Tensor]:
    context = stage(folder, *overrides)
    body = run(context)
    for step in body:
        if step.index == until:
            # The checkpoint of a step is written when the body is asked for more.
            next(body)
            body.close()
            return {}
    return load_file(context.out / FILE)


def test_a_resumed_training_equals_an_uninterrupted_one_and_stays_frozen(tmp_path):
    frozen, never = (
        (f"imageflownet.freeze_psnr={decibel}", "imageflownet.keep=last")
        for decibel in ("-50.0", "null")
    )
    whole = trained(tmp_path / "whole", *frozen)
    trained(tmp_path / "parts", *frozen, until=2)
    saved = torch.load(tmp_path / "parts" / "checkpoints" / "shared-2.pt", weights_only=True)
    assert int(saved["weights"]["frozen"]) == 1
    again = trained(tmp_path / "parts", *frozen)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    # Twin: a U-Net that the prediction goes on training is another.
    other = trained(tmp_path / "never", *never)
    assert not all(torch.equal(other[name], value) for name, value in whole.items())


def test_two_workers_share_one_workers_batch(tmp_path):
    context = stage(tmp_path)
    cohort = context.cohort.read("train")
    held = PairSet(cohort, context.settings.image)
    whole = batches(context, held)(3)
    for rank in (0, 1):
        world = LocalWorld(rank, 2)
        half = batches(stage(tmp_path, world=world), held)(3)
        part = slice(4 * rank, 4 * rank + 4)
        for name in ("baseline", "followup"):
            assert torch.equal(getattr(half.inputs, name), getattr(whole.inputs, name)[part])
            assert torch.equal(getattr(half.clean, name), getattr(whole.clean, name)[part])
        drawn = half.noise("skip0", 1, (2, 4, 4))
        assert torch.equal(drawn, whole.noise("skip0", 1, (2, 4, 4))[part])
        assert not torch.equal(drawn, half.noise("skip0", 0, (2, 4, 4)))
        assert not torch.equal(drawn, half.noise("skip1", 1, (2, 4, 4)))


def test_the_inputs_noise_has_an_amplitude_of_its_own_in_each_image():
    settings = ImageFlowNetSettings(batch_size=64)
    added = input_noise(settings, 1, 0, (32, 32))
    amplitudes = added.std((2, 3)).flatten()
    assert added.shape == (64, 2, 32, 32)
    assert 0 < amplitudes.min() < 0.01
    assert 0.09 < amplitudes.max() < 0.106
    assert abs(float(amplitudes.mean()) - 0.05) < 0.01
    assert not torch.equal(added, input_noise(settings, 1, 1, (32, 32)))
    assert not input_noise(dataclasses.replace(settings, input_noise=0.0), 1, 0, (8, 8)).any()


def test_a_tenth_warms_up_then_a_cosine_falls():
    settings = ImageFlowNetSettings()
    rates = np.array([settings.rate_at(step, 200) for step in range(201)])
    assert np.allclose(rates[:21], np.linspace(0, 1e-4, 21))
    assert np.allclose(rates[20:], 0.5e-4 * (1 + np.cos(np.pi * np.linspace(0, 1, 181))))
    assert ImageFlowNetSettings(warmup_share=0.0).rate_at(0, 200) == 1e-4


def test_an_epoch_has_at_most_2048_pairs():
    settings = ImageFlowNetSettings(num_epochs=120)
    assert settings.steps_for(1000) == 120 * 15
    assert settings.steps_for(2048) == settings.steps_for(90_000) == 120 * 32


@pytest.mark.parametrize(
    ("made", "values", "word"),
    [
        (UNetSettings, {"block_out_channels": ()}, "at least one level"),
        (UNetSettings, {"block_out_channels": (48,)}, "multiples of norm_num_groups 32, not 48"),
        (UNetSettings, {"num_heads": 3}, "multiples of num_heads 3, not 64"),
        (UNetSettings, {"layers_per_block": 0}, "layers_per_block"),
        (SDESettings, {"dt": 0.3}, "dt divides tau 5.0: 0.3 does not"),
        (SDESettings, {"tau": 0.0}, "above 0"),
        (SDESettings, {"initial_sigma": -1.0}, "initial_sigma"),
        (ImageFlowNetSettings, {"warmup_steps": 5}, "one is 0"),
        (ImageFlowNetSettings, {"warmup_share": 1.0}, "warmup_share"),
        (ImageFlowNetSettings, {"max_pairs": 8}, "max_pairs 8 is below batch_size 64"),
        (ImageFlowNetSettings, {"input_noise": -0.1}, "input_noise"),
        (ImageFlowNetSettings, {"reconstruction": OFF, "prediction": OFF}, "not both 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(made, values, word):
    assert made()
    with pytest.raises(ValueError, match=word):
        made(**values)


def test_an_image_that_the_unet_cannot_halve_or_attend_to_is_refused():
    def config(unet: UNetSettings) -> ImageFlowNetConfig:
        return ImageFlowNetConfig(imageflownet=ImageFlowNetSettings(architecture=unet, sde=SDE))

    assert config(UNetSettings()).image.size == 64
    with pytest.raises(ValueError, match="halved 6 times to 2"):
        config(UNetSettings((64,) * 7))
    with pytest.raises(ValueError, match=r"attention_sizes \[128\] are no level's"):
        config(dataclasses.replace(UNET, attention_sizes=(128, 32)))


def test_an_ode_draws_once():
    still = ["imageflownet.sde.initial_sigma=0", "imageflownet.sde.learned_sigma=false"]
    for overrides, draws in (([], 2), (still, 1)):
        configuration = resolve("tiny", None, ["method=imageflownet", *overrides])
        assert sum(stage.role == "draw" for stage in configuration.stages()) == draws
