"""Stage `vae`: its five terms (Eq 2-6), what it is fitted and validated on, its scaling factor."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from namd.data.intensity import to_unit
from namd.diffusion.noise import training_noise
from namd.losses.alignment import alignment_loss
from namd.losses.kl import kl_loss
from namd.methods.shared import perceptual_distance as perceptual
from namd.methods.shared import vae as stage
from namd.methods.shared.crop_set import CropBatch, CropSet
from namd.methods.shared.settings import (
    AlignmentSettings,
    ImageSettings,
    VAESettings,
    WeightedTerm,
)
from namd.methods.shared.vae import VAEObjective
from namd.train.world import LocalWorld
from tests.methods import made

OFF = WeightedTerm(0.0)
SHAPE = (4, 4, 4)
MALIGNANT = torch.tensor([1.0, float("nan"), 0.0, 1.0, float("nan"), 0.0])


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def batch():
    """Six crops of 8 px; the features of the second are incomplete, two labels unknown."""
    features = normal(6, 3, seed=1)
    features[1] = 0
    complete = torch.tensor([1.0, 0, 1, 1, 1, 1])
    return CropBatch(normal(6, 1, 8, 8), features, complete, MALIGNANT.clone()), normal(6, *SHAPE)


def terms(**weights):
    off = dict.fromkeys(("reconstruction", "kl", "perceptual", "prediction"), OFF)
    off["alignment"] = AlignmentSettings(0.0)
    return VAESettings(**{**off, **weights})


def objective(settings, distance=lambda ours, theirs: (ours - theirs).square().mean()):
    probe = nn.Linear(64, 1)
    with torch.no_grad():
        probe.weight.copy_(normal(1, 64, seed=2))
        probe.bias.fill_(0.3)
    return VAEObjective(made.FoldingVAE(0.5), probe, settings, distance)


def sampled(crops, noise):
    return nn.functional.pixel_unshuffle(crops.images, 2) + 0.5 * noise


def measured(**weights):
    crops, noise = batch()
    return objective(terms(**weights))((crops, noise)), crops, sampled(crops, noise)


def test_images_are_reconstructed_from_sampled_latents():
    output, crops, z = measured(reconstruction=WeightedTerm(2.0))
    error = (nn.functional.pixel_shuffle(z, 2) - crops.images).abs().mean()
    assert float(error) > 0.1
    assert float(output.metrics["reconstruction"]) == pytest.approx(float(error), rel=1e-5)
    assert float(output.loss) == pytest.approx(2 * float(error), rel=1e-5)


def test_the_perceptual_term_compares_reconstructions_with_their_images():
    output, crops, z = measured(perceptual=WeightedTerm(3.0))
    error = (nn.functional.pixel_shuffle(z, 2) - crops.images).square().mean()
    assert float(output.loss) == pytest.approx(3 * float(error), rel=1e-5)


def test_the_posterior_is_held_to_a_standard_normal():
    output, crops, _ = measured(kl=WeightedTerm(0.5))
    mean = nn.functional.pixel_unshuffle(crops.images, 2)
    wanted = kl_loss(mean, torch.full_like(mean, 2 * float(np.log(0.5))))
    assert float(output.loss) == pytest.approx(0.5 * float(wanted), rel=1e-5)


def test_the_label_is_predicted_from_sampled_latents_of_labelled_cases_alone():
    output, _, z = measured(prediction=WeightedTerm(0.2))
    known = ~MALIGNANT.isnan()
    logits = (z.flatten(1) @ normal(1, 64, seed=2).T)[:, 0] + 0.3
    signs = 2 * MALIGNANT[known] - 1
    wanted = torch.log1p(torch.exp(-signs * logits[known])).mean()
    assert float(output.metrics["prediction"]) == pytest.approx(float(wanted), rel=1e-4)
    assert float(output.loss) == pytest.approx(0.2 * float(wanted), rel=1e-4)


@pytest.mark.parametrize("pooling", ["pooled", "flatten"])
def test_sampled_latents_of_complete_cases_are_aligned_with_their_features(pooling):
    settings = AlignmentSettings(0.7, sigma_f=2.0, sigma_z=3.0, temperature=0.5, pooling=pooling)
    output, crops, z = measured(alignment=settings)
    kept = crops.complete.bool()
    vectors = z.mean((2, 3)) if pooling == "pooled" else z.flatten(1)
    wanted = alignment_loss(
        vectors[kept], crops.features[kept], sigma_z=3.0, sigma_f=2.0, temperature=0.5
    )
    assert float(output.metrics["alignment"]) == pytest.approx(float(wanted.loss), rel=1e-4)
    assert float(output.loss) == pytest.approx(0.7 * float(wanted.loss), rel=1e-4)
    share = float(wanted.perplexity_p) / (5 - 1)
    assert float(output.metrics["perplexity_p_share"]) == pytest.approx(share, rel=1e-4)


def test_too_few_complete_cases_give_no_alignment_and_a_gradient_of_zero():
    crops, noise = batch()
    few = CropBatch(crops.images, crops.features, torch.eye(6)[0] + torch.eye(6)[1], crops.labels)
    made_objective = objective(terms(alignment=AlignmentSettings(1.0)))
    output = made_objective((few, noise))
    output.loss.backward()
    assert float(output.loss.detach()) == 0
    assert float(made_objective.vae.gain.grad) == 0


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Stage `vae` on the folding autoencoder; what it gave the loop, and what it saved."""

    def train(*overrides, deviation=0.05, world=None):
        saved = {}
        vae = made.FoldingVAE(deviation)
        monkeypatch.setattr(stage, "build_vae", lambda _architecture: vae)
        monkeypatch.setattr(
            stage, "save_vae", lambda kept, _folder, factor: saved.update(vae=kept, factor=factor)
        )
        noted = made.noted_fit(monkeypatch, stage)
        off = ("vae.perceptual.weight=0", "vae.batch_size=6", "vae.num_epochs=4")
        context = made.context(tmp_path, *off, *overrides, world=world)
        list(stage.run(context))
        noted["features"] = json.loads((tmp_path / "out" / "features.json").read_text())
        return noted, saved

    return train


def test_attributes_are_standardised_by_train_cases_alone(trained):
    noted, _ = trained()
    numbers = np.array(made.SPLITS["train"], float)
    features = noted["features"]
    assert features["normalisation"] == "standardised"
    assert features["mean_mm"] == pytest.approx([5 + numbers.mean(), 4 + numbers.mean()])
    assert features["std_mm"] == pytest.approx([numbers.std(), numbers.std()])
    assert trained("features.normalisation=raw")[0]["features"]["normalisation"] == "raw"


def test_it_learns_from_train_crops_of_both_time_points(trained):
    noted, _ = trained()
    train = [*made.SPLITS["train"], *(case + 0.5 for case in made.FOLLOWED["train"])]
    assert noted["state"].num_steps == 4 * (len(train) // 6)
    seen = [case for step in range(5) for case in made.which(noted["batches"](step)[0].images)]
    assert sorted(seen) == sorted(train * 2)


def test_it_is_validated_on_validation_crops_by_the_sum_of_its_terms(trained):
    noted, _ = trained("vae.alignment.weight=0", "vae.prediction.weight=0", "vae.kl.weight=0")
    whole = made.cohort()
    crops = CropSet(whole.select(made.SPLITS["validation"]), ImageSettings(16, "none"), None)
    images = to_unit(crops.hu[0])
    noise = training_noise(0, "vae", 0, len(images), (4, 8, 8), purpose="validation-noise")
    wanted = nn.functional.pixel_shuffle(0.05 * noise, 2).abs().mean()
    assert noted["metrics"]["validation_loss"] == pytest.approx(float(wanted), rel=1e-4)
    assert set(noted["metrics"]) == {"validation_loss", "validation_reconstruction"}


def test_the_crops_that_choose_the_best_are_those_of_validation_patients(trained):
    noted, saved = trained()
    saved["vae"].seen.clear()
    noted["validate"]()
    held_out = [*made.SPLITS["validation"], *(n + 0.5 for n in made.FOLLOWED["validation"])]
    assert made.which(torch.cat(saved["vae"].seen)) == held_out


def test_a_validation_is_the_mean_over_whole_batches(trained, monkeypatch):
    monkeypatch.setattr(stage, "BATCH", 4)
    noted, _ = trained("vae.alignment.weight=0", "vae.prediction.weight=0", "vae.kl.weight=0")
    noise = [
        training_noise(0, "vae", start, 4, (4, 8, 8), purpose="validation-noise")
        for start in (0, 4)
    ]
    wanted = np.mean([float(0.05 * part.abs().mean()) for part in noise])
    assert noted["metrics"]["validation_loss"] == pytest.approx(wanted, rel=1e-4)


def test_crops_are_turned_at_random_and_the_posteriors_noise_changes(trained):
    noted, _ = trained("image.rotations=quarter")
    parts = [noted["batches"](step) for step in range(4)]
    corners = torch.cat([crops.images[:, 0] for crops, _ in parts])
    brightest = {
        int(place) for place in (corners - corners.mean((1, 2), True)).flatten(1).argmax(1)
    }
    assert len(brightest) == 4, "the bright corner lies in each of the four"
    assert all(not torch.equal(a[1], b[1]) for i, a in enumerate(parts) for b in parts[:i])


def test_ranks_hold_the_parts_of_one_global_batch(trained):
    whole, _ = trained("image.rotations=quarter")
    for rank in range(2):
        own, _ = _batches(trained, rank)
        crops, noise = whole["batches"](0)
        rows = slice(3 * rank, 3 * rank + 3)
        assert torch.equal(own[0].images, crops.images[rows])
        assert torch.equal(own[1], noise[rows])


def _batches(trained, rank):
    with pytest.MonkeyPatch.context() as patch:
        state = stage.TrainState

        def alone(*arguments):
            *before, _world, precision, seed = arguments
            return state(*before, LocalWorld(), precision, seed)

        patch.setattr(stage, "TrainState", alone)
        noted, saved = trained("image.rotations=quarter", world=LocalWorld(rank, 2))
    return noted["batches"](0), saved


@pytest.mark.parametrize("deviation", [0.05, 0.8])
def test_the_scaling_factor_gives_sampled_train_latents_a_deviation_of_one(trained, deviation):
    noted, saved = trained(deviation=deviation)
    assert noted["state"].name == "vae"
    cohort = made.cohort().select(made.SPLITS["train"])
    crops = CropSet(cohort, ImageSettings(16, "none"), None)
    values = to_unit(crops.hu[0]).astype(float)
    wanted = 1 / np.sqrt(values.var() + deviation**2)
    assert saved["factor"] == pytest.approx(wanted, rel=0.03)
    assert values.mean() ** 2 > 0.1 * values.var(), "forgetting the mean would be seen"


def test_crops_beyond_the_first_batch_enter_the_scaling_factor(trained, monkeypatch):
    _, whole = trained(deviation=0.01)
    monkeypatch.setattr(stage, "BATCH", 2)
    _, parts = trained(deviation=0.01)
    assert parts["factor"] == pytest.approx(whole["factor"], rel=1e-3)


def test_without_real_lpips_images_are_compared_by_the_embedded_encoder(trained, monkeypatch):
    class Encoder(nn.Module):
        def features(self, images):
            return [images.mean((2, 3), keepdim=True)]

    monkeypatch.setattr(perceptual, "load_encoder", lambda _folder, _channels: Encoder())
    monkeypatch.setattr(
        perceptual, "perceptual_distance", lambda ours, theirs: (ours[0] - theirs[0]).abs().mean()
    )
    found, _ = trained("vae.perceptual.weight=1")
    distance = found["state"].objective.distance
    one, two = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.25)
    assert float(distance(one, two)) == pytest.approx(0.25)
