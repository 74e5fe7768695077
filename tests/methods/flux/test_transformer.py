"""Packing, what the transformer is shown, and weights in a folder of FLUX.1's form."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from namd.config.errors import InputError
from namd.methods.flux.objective import RectifiedFlow
from namd.methods.flux.record import WIDTHS, RecordTokens
from namd.methods.flux.settings import FluxArchitecture
from namd.methods.flux.transformer import (
    build_transformer,
    condition_on_baseline,
    packed,
    token_positions,
    unpacked,
)
from namd.pipeline.graph import missing_weights
from namd.pipeline.run_configuration import resolve

SMALL = FluxArchitecture(
    num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=8, record_width=8
)
LATENTS = torch.arange(2 * 4 * 8 * 6.0).view(2, 4, 8, 6)


def test_2_by_2_positions_are_one_token_and_come_back():
    tokens = packed(LATENTS)
    assert tokens.shape == (2, 12, 16)
    assert packed(torch.zeros(1, 4, 8, 8)).shape == (1, 16, 16)
    for row in range(4):
        for column in range(3):
            square = LATENTS[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(tokens[:, 3 * row + column], square.flatten(1))
    assert torch.equal(unpacked(tokens, 8, 6), LATENTS)
    # Twin: tokens in another order are another image.
    assert not torch.equal(unpacked(tokens.flip(1), 8, 6), LATENTS)


def test_positions_count_rows_and_columns_of_tokens():
    positions = token_positions(8, 6)
    assert positions.shape == (12, 3)
    assert not positions[:, 0].any()
    assert positions[:, 1].tolist() == [row for row in range(4) for _ in range(3)]
    assert positions[:, 2].tolist() == [0, 1, 2] * 4


def random_flow(architecture=SMALL, guidance=None):
    torch.manual_seed(0)
    transformer = build_transformer(architecture, 4, guidance is not None)
    return RectifiedFlow(transformer, RecordTokens(8, 8), guidance)


def shown(flow, **values):
    """What the transformer is given for noisy latents and a baseline."""
    seen = {}
    flow.transformer.forward = lambda **given: (
        seen.update(given) or (given["hidden_states"][:, :, :16],)
    )
    noisy, baseline = LATENTS, -LATENTS
    levels = torch.tensor([0.25, 0.75])
    texts = flow.record(torch.zeros(2, sum(WIDTHS)))
    predicted = flow.predict(noisy, levels, baseline, texts, **values)
    return seen, predicted


def test_a_token_holds_its_noisy_numbers_first_and_its_baseline_s_second():
    seen, predicted = shown(random_flow())
    assert torch.equal(seen["hidden_states"][:, :, :16], packed(LATENTS))
    assert torch.equal(seen["hidden_states"][:, :, 16:], packed(-LATENTS))
    assert torch.equal(seen["timestep"], torch.tensor([0.25, 0.75]))
    assert torch.equal(seen["img_ids"], token_positions(8, 6))
    assert seen["txt_ids"].shape == (13, 3)
    assert not seen["txt_ids"].any()
    assert torch.equal(predicted, LATENTS)
    assert seen["guidance"] is None
    guided, _ = shown(random_flow(guidance=30.0))
    assert guided["guidance"].tolist() == [30.0, 30.0]


def velocities(flow, baseline=LATENTS / 300, noisy=LATENTS / 200):
    torch.manual_seed(1)
    texts = flow.record(torch.randn(2, sum(WIDTHS)))
    return flow.predict(noisy, torch.tensor([0.2, 0.9]), baseline, texts)


def test_random_weights_start_at_velocity_zero_and_learn_from_there():
    flow = random_flow()
    drawn = velocities(flow)
    assert not drawn.any()
    (drawn - 1).square().mean().backward()
    assert flow.transformer.proj_out.bias.grad.any()
    # Twin: diffusers' own start is another.
    torch.manual_seed(0)
    flow.transformer = FluxTransformer2DModel(**dict(flow.transformer.config))
    assert velocities(flow).any()


def published(folder, channels=16, **values):
    """A small transformer, written as FLUX.1's repository has it."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=channels,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(4, 2, 2),
        **values,
    )
    transformer.save_pretrained(folder / "transformer")
    config = folder / "transformer" / "config.json"
    known = json.loads(config.read_text())
    known.pop("out_channels")  # FLUX.1's own file has none
    config.write_text(json.dumps(known))
    return transformer


def test_a_published_folder_is_read_whole_and_ignores_the_baseline_at_first(tmp_path):
    original = published(tmp_path)
    own = build_transformer(FluxArchitecture(weights=str(tmp_path)), 4, guided=False)
    before, after = original.state_dict(), own.state_dict()
    assert torch.equal(after["x_embedder.weight"][:, :16], before["x_embedder.weight"])
    assert not after["x_embedder.weight"][:, 16:].any()
    for name in before.keys() - {"x_embedder.weight"}:
        assert torch.equal(after[name], before[name]), name
    flow = RectifiedFlow(own, RecordTokens(12, 10), None)
    first = velocities(flow)
    assert first.any()
    assert torch.equal(velocities(flow, baseline=-LATENTS / 99), first)
    # Twin: columns that are not zero read it.
    torch.nn.init.normal_(own.x_embedder.weight)
    other = velocities(flow)
    assert not torch.allclose(velocities(flow, baseline=-LATENTS / 99), other, atol=1e-3)


def test_a_transformer_that_has_a_condition_already_keeps_its_columns(tmp_path):
    wide = condition_on_baseline(published(tmp_path))
    wide.x_embedder.weight.data[:, 16:] = 0.5
    wide.save_pretrained(tmp_path / "transformer")
    own = build_transformer(FluxArchitecture(weights=str(tmp_path)), 4, guided=False)
    assert torch.equal(own.x_embedder.weight, wide.x_embedder.weight)
    assert own.proj_out.out_features == 16
    with pytest.raises(ValueError, match="conditioned already"):
        condition_on_baseline(own)


def configured(folder, *overrides):
    return resolve("tiny", None, ["method=flux", f"flux.architecture.weights={folder}", *overrides])


def refusal(folder, *overrides):
    with pytest.raises(InputError) as caught:
        configured(folder, *overrides)
    line = str(caught.value)
    assert "\n" not in line
    assert f"flux.architecture.weights={folder}" in line
    return line


def test_weights_for_other_latents_are_refused_before_a_run(tmp_path):
    published(tmp_path, channels=64)
    line = refusal(tmp_path)
    assert "tokens of 64 numbers" in line
    assert "latents has 16" in line
    assert "flux.architecture.weights to null" in line
    with pytest.raises(InputError, match="tokens of 64 numbers"):
        build_transformer(FluxArchitecture(weights=str(tmp_path)), 4, guided=False)
    published(tmp_path)
    found = configured(tmp_path)
    assert not missing_weights(found.stages(), found.config)


def test_the_latents_of_flux_s_own_autoencoder_fit_its_transformer(tmp_path):
    published(tmp_path, channels=64)
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=16).save_pretrained(
        tmp_path / "vae"
    )
    own = (f"vae.architecture.weights={tmp_path}", "vae.architecture.pixel_unshuffle=1")
    found = configured(tmp_path, *own)
    assert not missing_weights(found.stages(), found.config)
    published(tmp_path)
    assert "latents has 64" in refusal(tmp_path, *own)


def test_a_guidance_distilled_transformer_needs_its_guidance(tmp_path):
    published(tmp_path, guidance_embeds=True)
    assert "flux.guidance to be a number (30)" in refusal(tmp_path)
    assert configured(tmp_path, "flux.guidance=30").config.flux.guidance == 30
    published(tmp_path)
    assert "flux.guidance to be null" in refusal(tmp_path, "flux.guidance=30")


def test_a_missing_folder_says_where_it_was_sought_and_what_to_do(tmp_path):
    nowhere = tmp_path / "nowhere"
    found = configured(nowhere)
    (status,) = missing_weights(found.stages(), found.config)
    assert status.name == "flux"
    assert str(nowhere) in status.refusal
    assert "flux.architecture.weights to null" in status.refusal
    assert "\n" not in status.refusal
    with pytest.raises(InputError, match="weights to null"):
        build_transformer(FluxArchitecture(weights=str(nowhere)), 4, guided=False)


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("flux.architecture.attention_head_dim=12", "a multiple of 8, not 12"),
        ("flux.noise_levels.logit_std=0", "logit_std is above 0"),
        ("flux.record.dropout=1", "dropout lies in"),
        ("flux.record.include=[shoe_size]", "not shoe_size"),
        ("flux.guidance=-1", "guidance is 0 or more"),
        ("draws.num_inference_steps=0", "num_inference_steps is 1 or more"),
        ("latents.fold=3", "not a multiple of"),
    ],
)
def test_what_cannot_be_is_refused(override, word):
    with pytest.raises(InputError, match=word):
        resolve("tiny", None, ["method=flux", override])


@pytest.mark.parametrize("head", [8, 16, 24, 32, 64, 128])
def test_every_number_of_a_head_turns_with_one_axis(head):
    axes = FluxArchitecture(attention_head_dim=head).axes_dims_rope
    assert sum(axes) == head
    assert all(axis > 0 and axis % 2 == 0 for axis in axes)
    assert FluxArchitecture(attention_head_dim=128).axes_dims_rope == (16, 56, 56)
