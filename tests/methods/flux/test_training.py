"""What the flow learns and from what: loss, batches, record, 32 pairs, the stage's body."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file

from namd.data.schema import CODES, EHR_FEATURES
from namd.methods.flux import training
from namd.methods.flux.flow import euler_sample, euler_scheduler, interpolated, velocity
from namd.methods.flux.objective import RectifiedFlow
from namd.methods.flux.quick_draws import METRIC, QuickDraws
from namd.methods.flux.record import WIDTHS, RecordScale, RecordTokens, load_record, save_record
from namd.methods.shared.latents import load_latents
from namd.train.loop import DivergedError
from namd.train.world import LocalWorld
from tests.methods import made as crops
from tests.methods.flux import made


def test_the_loss_is_the_squared_error_of_the_velocity():
    batch = made.batches().at(0)

    class Constant(RectifiedFlow):
        def predict(self, noisy, levels, condition, texts):
            assert torch.equal(condition, batch.condition)
            assert torch.equal(noisy, interpolated(batch.clean, batch.noise, levels))
            assert torch.equal(texts[0], self.record(batch.record)[0])
            return torch.full_like(noisy, 0.5)

    own = made.flow()
    found = Constant(own.transformer, own.record, None)(batch)
    expected = (velocity(batch.clean, batch.noise) - 0.5).square().mean()
    assert float(found.loss) == pytest.approx(float(expected))
    assert float(found.loss) != pytest.approx(float((batch.clean - 0.5).square().mean()))


def test_a_batch_holds_baseline_record_and_followup_of_the_same_cases():
    source = made.batches()
    for step in range(3):
        batch = source.at(step)
        latents = source.latents
        assert torch.equal(batch.condition, latents.baseline.mean[0, batch.cases])
        assert torch.allclose(batch.clean, latents.followup.mean[0, batch.cases], atol=0.02)
        assert torch.equal(batch.record, source.record[batch.cases])
    assert sorted(source.at(0).cases) == list(range(made.COUNT))
    assert not torch.equal(source.at(0).levels, source.at(1).levels)
    assert not torch.equal(source.at(0).noise, source.at(1).noise)


def test_a_sampled_baseline_has_noise_of_its_own():
    source = made.batches(baseline_latent="sample")
    source.latents.baseline.logvar.fill_(0.0)
    source.latents.followup.logvar.fill_(0.0)
    batch = source.at(0)
    own = batch.condition - source.latents.baseline.mean[0, batch.cases]
    target = batch.clean - source.latents.followup.mean[0, batch.cases]
    assert float(own.std()) == pytest.approx(1, abs=0.1)
    both = torch.stack([own.flatten(), target.flatten(), batch.noise.flatten()])
    assert torch.corrcoef(both).fill_diagonal_(0).abs().max() < 0.1


def test_both_images_of_a_pair_are_turned_alike():
    source = made.batches(angles=3)
    batch = source.at(0)
    spread = 0
    for position, case in enumerate(batch.cases):
        turn = [
            n
            for n in range(3)
            if torch.equal(batch.condition[position], source.latents.baseline.mean[n, case])
        ]
        assert len(turn) == 1
        later = source.latents.followup.mean[turn[0], case]
        assert torch.allclose(batch.clean[position], later, atol=0.02)
        spread += turn[0]
    assert 0 < spread < 2 * made.COUNT


def test_records_are_dropped_at_the_stated_rate_in_training_alone():
    source = made.batches(dropout=0.3)
    kept = [source.at(step).record.any(1).float().mean() for step in range(30)]
    assert float(np.mean(kept)) == pytest.approx(0.7, abs=0.05)
    assert all(batch.record.any(1).all() for batch in source.validation())
    assert made.batches().at(0).record.any(1).all()


def test_validation_is_fixed_and_covers_every_noise_level():
    first, again = made.batches().validation(), made.batches().validation()
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(first, again, strict=True))
    assert [batch.cases.tolist() for batch in first] == [list(range(made.COUNT))] * 4
    for stratum, batch in enumerate(first):
        assert (
            stratum / 4
            <= float(batch.levels.min())
            <= float(batch.levels.max())
            <= stratum / 4 + 0.25
        )


def test_two_workers_see_together_what_one_sees():
    whole = made.batches().at(2)
    parts = [made.batches(LocalWorld(rank, 2)).at(2) for rank in (0, 1)]
    for name in ("clean", "noise", "levels", "condition", "record"):
        both = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(both, getattr(whole, name)), name
    assert not torch.equal(parts[0].noise, parts[1].noise)


@pytest.fixture(scope="module")
def learned():
    return made.overfitted(60)


def drawn_error(learned, baseline=0, record=0):
    """Mean squared error of draws, once baselines or records have been handed on by so many."""
    latents, truth = learned.source.latents, learned.source.latents.followup.mean[0]
    field = learned.objective.bound(
        latents.baseline.mean[0].roll(baseline, 0), learned.source.record.roll(record, 0)
    )
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = euler_sample(field, noise, euler_scheduler(10, 4, dynamic_shift=True))
    return float((drawn - truth).square().mean())


def test_it_overfits_32_pairs_and_needs_baseline_and_record(learned):
    assert made.error(learned.objective, learned.source) < 0.2 * learned.first
    own = drawn_error(learned)
    latents = learned.source.latents
    copied = (latents.baseline.mean - latents.followup.mean).square().mean()
    assert own < 0.2 * float(copied)
    assert drawn_error(learned, baseline=1) > 2 * own
    assert drawn_error(learned, record=16) > 2 * own


def test_a_flow_that_reads_no_record_would_be_seen(learned):
    """The law above can fail: with one record for all, permuting them changes nothing."""
    source = dataclasses.replace(learned.source, record=torch.zeros_like(learned.source.record))
    deaf = type(learned)(objective=learned.objective, source=source, first=learned.first)
    assert drawn_error(deaf, record=16) == drawn_error(deaf)


def test_a_record_is_ones_at_its_codes_and_standardised_numbers():
    rows = made.table().assign(gender=2.0, SCT_MARGINS=np.nan, SCT_LONG_DIA=7.0)
    scale = RecordScale.fit(rows, EHR_FEATURES)
    blocks = dict(zip(EHR_FEATURES, scale.numbers(rows).split(WIDTHS, 1), strict=True))
    age = rows["age"].to_numpy()
    expected = (age - age.mean()) / age.std()
    assert np.allclose(blocks["age"][:, 0], expected, atol=1e-5)
    assert (blocks["age"][:, 1] == 1).all()
    assert blocks["gender"].tolist() == [[0.0, 1.0]] * made.COUNT
    assert blocks["SCT_LONG_DIA"].tolist() == [[0.0, 1.0]] * made.COUNT
    for missing in ("SCT_MARGINS", "SCT_PERP_DIA", "famchild"):
        assert not blocks[missing].any(), missing
    # Twin: what is not included counts as missing, and nothing else changes.
    less = dataclasses.replace(scale, include=tuple(set(EHR_FEATURES) - {"age"}))
    others = dict(zip(EHR_FEATURES, less.numbers(rows).split(WIDTHS, 1), strict=True))
    assert not others.pop("age").any()
    assert all(torch.equal(block, blocks[name]) for name, block in others.items())
    assert len(blocks["SCT_PRE_ATT"][0]) == len(CODES["SCT_PRE_ATT"])


def test_every_feature_is_a_token_and_all_of_them_are_pooled(tmp_path):
    torch.manual_seed(0)
    reader = RecordTokens(6, 4)
    numbers = torch.randn(3, sum(WIDTHS))
    states, pooled = reader(numbers)
    assert (states.shape, pooled.shape) == ((3, 13, 6), (3, 4))
    first = 0
    for place, width in enumerate(WIDTHS):
        other = numbers.clone()
        other[:, first : first + width] += 1
        changed, changed_pooled = reader(other)
        assert (changed != states).any(2).any(0).nonzero().flatten().tolist() == [place]
        assert not torch.allclose(changed_pooled, pooled)
        first += width
    scale = RecordScale.fit(made.table(), ("age",))
    save_record(reader, scale, tmp_path)
    again, found = load_record(tmp_path)
    assert found == scale
    assert torch.equal(again(numbers)[0], states)


@pytest.fixture
def inputs(monkeypatch, tmp_path):
    return made.encoded(monkeypatch, tmp_path / "inputs")


def weights(folder):
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors") | load_file(
        folder / "record.safetensors"
    )


def test_the_stage_learns_train_pairs_beside_their_own_records(inputs, monkeypatch, tmp_path):
    noted = crops.noted_fit(monkeypatch, training)
    made.trained(tmp_path / "run", inputs)
    batch = noted["batches"](1)
    images = torch.nn.functional.pixel_shuffle(batch.condition / made.SCALE, 2)
    whose = crops.which(images)
    assert set(whose) <= set(crops.FOLLOWED["train"])
    age = dict(zip(EHR_FEATURES, batch.record.split(WIDTHS, 1), strict=True))["age"][:, 0]
    assert torch.equal(torch.tensor(whose).argsort(), age.argsort())
    assert {"validation_loss"} == set(noted["metrics"]), "no nodule stands out on a level picture"
    known = np.array(crops.FOLLOWED["train"]) + 40.0
    expected = (torch.tensor(whose) + 40 - known.mean()) / known.std()
    assert torch.allclose(age, expected.float(), atol=1e-5)


def test_quick_draws_decode_scaled_latents_beside_the_real_followups(inputs, monkeypatch, tmp_path):
    given = {}

    def noted(*positional, **named):
        given.update(named, decode=positional[1])
        return object.__new__(QuickDraws)

    monkeypatch.setattr(training, "QuickDraws", noted)
    monkeypatch.setattr(QuickDraws, "__call__", lambda _self: {METRIC: 1.5})
    fit = crops.noted_fit(monkeypatch, training)
    made.trained(tmp_path / "run", inputs)
    cases = crops.FOLLOWED["validation"]
    images = torch.nn.functional.pixel_shuffle(given["condition"] / made.SCALE, 2)
    assert crops.which(images) == cases
    assert crops.which(given["decode"](given["condition"])) == cases
    assert crops.which(given["followup"]) == [case + 0.5 for case in cases]
    assert given["case_ids"] == [f"c{case:02d}" for case in cases]
    assert fit["metrics"][METRIC] == 1.5


def test_the_stage_writes_diffusers_own_format_and_resumes_bit_for_bit(inputs, tmp_path):
    whole = made.trained(tmp_path / "whole", inputs)
    loaded = FluxTransformer2DModel.from_pretrained(whole / "transformer")
    assert (loaded.config.in_channels, loaded.config.out_channels) == (32, 16)
    _, scale = load_record(whole)
    assert scale.mean["age"] == pytest.approx(np.mean(crops.FOLLOWED["train"]) + 40)
    parts = tmp_path / "parts"
    made.trained(parts, inputs, until=2)
    assert not (parts / "out" / "transformer").exists()
    again = weights(made.trained(parts, inputs))
    assert all(torch.equal(again[name], value) for name, value in weights(whole).items())
    # Twin: another seed is another flow.
    other = weights(made.trained(tmp_path / "other", inputs, "train_seed=7"))
    assert not all(torch.equal(other[name], value) for name, value in weights(whole).items())


def test_a_loss_that_is_not_finite_ends_the_training(inputs, tmp_path, monkeypatch):
    broken = load_latents(inputs["latents"], "train")
    broken.followup.mean[0, 2] = float("nan")
    real = training.load_latents
    monkeypatch.setattr(
        training,
        "load_latents",
        lambda folder, split: broken if split == "train" else real(folder, split),
    )
    with pytest.raises(DivergedError):
        made.trained(tmp_path / "run", inputs)
    assert not (tmp_path / "run" / "out" / "transformer").exists()
