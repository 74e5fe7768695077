"""DDL-CXR's record encoder, joint objective and autoencoder."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from namd.data.schema import EHR_FEATURES
from namd.diffusion.conditioning import condition_on_latents
from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import NoiseScheduleSettings
from namd.losses.reconstruction import reconstruction_loss
from namd.methods.ddl_cxr.autoencoder import (
    DISCRIMINATOR,
    AutoencoderBatch,
    LabelledAutoencoder,
)
from namd.methods.ddl_cxr.discriminator import build_discriminator
from namd.methods.ddl_cxr.record_encoder import (
    RecordEncoder,
    RecordStatistics,
    load_encoder,
    num_rows,
    save_encoder,
)
from namd.methods.ddl_cxr.settings import (
    AdversarialTerm,
    DDLSettings,
    LabelTerm,
    LabelVAESettings,
    RecordEncoderSettings,
    TripletTerm,
)
from namd.methods.ddl_cxr.training import HybridObjective, HybridSource
from namd.methods.shared.crop_set import CropBatch
from namd.methods.shared.denoising import BatchSource
from namd.methods.shared.latents import PairedLatents
from namd.models.initialisation import initialised_from
from namd.models.settings import UNetArchitecture, VAEArchitecture
from namd.models.unet import build_unet
from namd.models.vae import build_vae
from namd.pipeline.run_configuration import resolve
from namd.train.world import LocalWorld
from tests.methods import made

SMALL = RecordEncoderSettings(width=16, num_heads=2, feedforward=16, dropout=0.0)
UNET = UNetArchitecture(
    block_out_channels=(16, 16), norm_num_groups=4, num_attention_heads=2, layers_per_block=1
)
COUNT = 32


def table() -> pd.DataFrame:
    cohort = made.cohort().table
    rows = pd.concat([cohort] * 2, ignore_index=True).iloc[:COUNT]
    return rows.assign(age=np.linspace(40, 71, COUNT), label=(np.arange(COUNT) % 2).astype(float))


@pytest.fixture
def encoder() -> RecordEncoder:
    with initialised_from("test", 0):
        return RecordEncoder(SMALL).eval()


def test_every_feature_is_a_token_and_a_missing_one_another(encoder):
    rows = table()
    statistics = RecordStatistics.fit(rows)
    whole = statistics.batch(rows)
    assert whole.rows.shape == (COUNT, 13)
    assert int(whole.rows.max()) < num_rows()
    assert encoder(whole).shape == (COUNT, 14, 16)
    for place, name in enumerate(EHR_FEATURES):
        lost = statistics.batch(rows.assign(**{name: np.nan}))
        other = np.flatnonzero(
            (lost.rows != whole.rows).any(0) | (lost.values != whole.values).any(0)
        )
        assert other.tolist() in ([place], []), name
        assert not lost.values[:, place].any()
    used = [set(whole.rows[:, place].tolist()) for place in range(13)]
    assert all(not a & b for i, a in enumerate(used) for b in used[:i])


def test_numbers_are_standardised_by_the_fitted_table():
    statistics = RecordStatistics.fit(table())
    age = statistics.batch(table()).values[:, EHR_FEATURES.index("age")].numpy()
    assert age.mean() == pytest.approx(0, abs=1e-5)
    assert age.std() == pytest.approx(1, abs=1e-5)
    nobody = RecordStatistics.fit(table().assign(age=np.nan))
    assert nobody.deviation[2] == 1.0


def test_a_record_is_encoded_alike_alone_and_in_a_batch_and_after_its_file(encoder, tmp_path):
    statistics = RecordStatistics.fit(table())
    batch = statistics.batch(table())
    torch.testing.assert_close(encoder(batch.at(np.array([5]))), encoder(batch)[5:6])
    save_encoder(encoder, statistics, tmp_path)
    again, found = load_encoder(tmp_path, SMALL)
    assert found == statistics
    with torch.no_grad():
        torch.testing.assert_close(again(batch), encoder(batch))


def source_of(settings: DDLSettings, batch_size: int = COUNT) -> HybridSource:
    """32 pairs whose change is the age of the record, and nothing else."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.standard_normal((1, COUNT, 4, 4, 4), dtype=np.float32))
    change = torch.linspace(-1.5, 1.5, COUNT)[None, :, None, None, None]
    logvar = torch.full_like(before, -12.0)
    latents = PairedLatents(
        {
            "baseline_mean": before,
            "baseline_logvar": logvar,
            "followup_mean": 0.5 * before + change,
            "followup_logvar": logvar,
        },
        np.arange(COUNT).astype(str),
    )
    source = BatchSource(
        "test", 0, latents, SCHEDULE, LocalWorld(), paired=True, batch_size=batch_size
    )
    labels = torch.tensor(table()["label"].to_numpy(np.float32))
    return HybridSource(source, RecordStatistics.fit(table()).batch(table()), labels, settings)


SCHEDULE = noise_schedule(
    NoiseScheduleSettings(beta_start=0.0015, beta_end=0.0195, prediction_type="v_prediction")
)
TERMS = DDLSettings(record=SMALL, triplet=TripletTerm(ramp_epochs=30))


def objective_of(settings: DDLSettings) -> HybridObjective:
    with initialised_from("test", 1):
        unet = build_unet(UNET, 4, 4, SMALL.width, 4)
        condition_on_latents(unet, 4)
        made_encoder, classifier = RecordEncoder(SMALL), nn.Linear(SMALL.width, 1)
    return HybridObjective(unet, made_encoder, classifier, SCHEDULE, settings)


@torch.no_grad()
def error(objective, batches) -> float:
    objective.eval()
    found = float(np.mean([float(objective(batch).loss) for batch in batches]))
    objective.train()
    return found


def permuted(batch):
    """Records of other cases, half an age range away."""
    order = np.roll(np.arange(len(batch.cases)), COUNT // 2)
    return dataclasses.replace(batch, records=batch.records.at(order))


@pytest.fixture(scope="module")
def learned() -> SimpleNamespace:
    objective, source = objective_of(TERMS), source_of(TERMS)
    held = source.validation()
    first = error(objective, held)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=6e-3)
    for step in range(60):
        optimiser.zero_grad()
        objective(source.at(step)).loss.backward()
        optimiser.step()
    return SimpleNamespace(objective=objective, held=held, first=first)


def test_it_overfits_32_pairs_and_needs_baseline_and_record(learned):
    last = error(learned.objective, learned.held)
    assert last < 0.5 * learned.first
    assert error(learned.objective, [permuted(batch) for batch in learned.held]) > 1.2 * last
    moved = [
        dataclasses.replace(
            batch,
            denoising=dataclasses.replace(
                batch.denoising, condition=batch.denoising.condition.roll(1, 0)
            ),
        )
        for batch in learned.held
    ]
    assert error(learned.objective, moved) > 1.2 * last


def test_an_encoder_that_reads_nothing_would_be_seen(learned):
    """The law above can fail: without slopes and codes permuting the records changes nothing."""
    deaf = objective_of(TERMS)
    deaf.load_state_dict(learned.objective.state_dict())
    nn.init.zeros_(deaf.encoder.slopes)
    nn.init.zeros_(deaf.encoder.codes.weight)
    assert error(deaf, [permuted(b) for b in learned.held]) == error(deaf, learned.held)


def test_the_loss_is_error_plus_label_plus_ramped_triplet():
    objective, source = objective_of(TERMS), source_of(TERMS)
    batch = source.at(3)
    assert batch.ramp == pytest.approx(0.1), "epoch 3 of 30, an epoch being one step"
    output = objective(batch)
    terms = output.metrics
    expected = terms["mse"] + 1.4 * terms["label"] + 0.1 * terms["triplet"]
    assert float(output.loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert "triplet" not in objective(source.at(0)).metrics
    without = objective_of(dataclasses.replace(TERMS, triplet=TripletTerm(weight=0.0)))
    assert "triplet" not in without(batch).metrics
    with torch.no_grad():
        assert float(objective.eval()(batch).loss) == pytest.approx(float(terms["mse"]), rel=0.5), (
            "in eval mode the error alone"
        )


def test_what_is_corrupted_is_the_encoded_sequence(monkeypatch):
    objective, batch = objective_of(TERMS), source_of(TERMS).at(3)
    seen = []
    forward = objective.unet.forward

    def noted(*arguments, encoder_hidden_states, **options):
        seen.append(encoder_hidden_states.detach())
        return forward(*arguments, encoder_hidden_states=encoder_hidden_states, **options)

    monkeypatch.setattr(objective.unet, "forward", noted)
    objective(batch)
    own, corrupted = seen
    torch.testing.assert_close(corrupted, 0.5 * own + 0.5 * batch.corruption)
    assert batch.corruption.std() == pytest.approx(1, abs=0.05)


def test_unknown_labels_are_left_out():
    objective, batch = objective_of(TERMS), source_of(TERMS).at(0)
    known = torch.arange(COUNT) < 20
    unknown = torch.where(known, batch.labels, torch.nan)
    flipped = torch.where(known, batch.labels, 1 - batch.labels)
    values = [
        float(objective(dataclasses.replace(batch, labels=each)).metrics["label"])
        for each in (unknown, flipped, batch.labels)
    ]
    assert np.isfinite(values).all()
    assert values[1] != values[2]
    assert values[0] not in (values[1], values[2])


def autoencoder(**terms) -> LabelledAutoencoder:
    settings = LabelVAESettings(**terms)
    with initialised_from("test", 2):
        vae = build_vae(VAEArchitecture(block_out_channels=(8, 8), norm_num_groups=4, dropout=0.0))
        head = nn.Linear(4 * 64, 1)
        discriminator = None
        if settings.adversarial.weight:
            discriminator = build_discriminator(4, 1)
    return LabelledAutoencoder(vae, head, discriminator, settings, reconstruction_loss)


def crop_batch(step: int = 0) -> AutoencoderBatch:
    rng = np.random.default_rng(1)
    images = torch.from_numpy(rng.uniform(-1, 1, (6, 1, 16, 16)).astype(np.float32))
    empty = torch.zeros(6, 0)
    labels = torch.tensor([0.0, 1, 0, 1, float("nan"), 1])
    noise = torch.from_numpy(rng.standard_normal((6, 4, 8, 8), dtype=np.float32))
    return AutoencoderBatch(CropBatch(images, empty, torch.zeros(6), labels), noise, step)


def test_the_label_pulls_at_the_last_encoder_layer_as_the_image_does():
    objective = autoencoder()
    output = objective(crop_batch())
    last = objective.vae.autoencoder.encoder.conv_out.weight
    weight = output.metrics["label_weight"]
    fixed = autoencoder(label=LabelTerm(adaptive=False))
    plain = fixed(crop_batch())
    assert float(plain.metrics["label_weight"]) == 1.0
    gap = (output.loss - plain.loss).detach()
    assert float(gap) == pytest.approx(float((weight - 1) * output.metrics["label"]), rel=1e-3)
    none = autoencoder(label=LabelTerm(0.0))(crop_batch()).loss
    (whole,) = torch.autograd.grad(output.loss, last)
    objective = autoencoder(label=LabelTerm(0.0), kl=LabelVAESettings().kl)
    last = objective.vae.autoencoder.encoder.conv_out.weight
    (image,) = torch.autograd.grad(objective(crop_batch()).loss, last)
    assert float((whole - image).norm()) == pytest.approx(float(image.norm()), rel=0.05)
    assert float(none.detach()) < float(output.loss.detach())


def test_a_validation_loss_has_no_weight_that_depends_on_gradients():
    objective = autoencoder().eval()
    with torch.no_grad():
        output = objective(crop_batch())
    expected = output.metrics["image"] + 1e-6 * output.metrics["kl"]
    assert float(output.loss) == pytest.approx(float(expected))
    assert "label_weight" not in output.metrics


def test_the_discriminator_counts_from_its_step_on():
    objective = autoencoder(adversarial=AdversarialTerm(0.5, start_step=3, channels=4))
    assert "adversarial" not in objective(crop_batch(2)).metrics
    assert float(objective(crop_batch(2), DISCRIMINATOR).loss.detach()) == 0
    output = objective(crop_batch(3))
    assert "adversarial" in output.metrics
    judged = objective(crop_batch(3), DISCRIMINATOR).loss
    judged.backward()
    assert all(p.grad is None for p in objective.vae.parameters())
    assert all(p.grad is not None for p in objective.discriminator.parameters())
    assert autoencoder().discriminator is None


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("draws.guidance_scale=2", "guidance_scale is 1, not 2"),
        ("ddl.record.width=15", "width is even"),
        ("ddl.triplet.kept=2", "kept lies in"),
        ("ddl.triplet.ramp_epochs=0", "ramp_epochs is 1 or more"),
        ("vae.adversarial.num_layers=6", "leaves no patch"),
        ("draws.ddim.num_inference_steps=2000", "more than the 1000|more than the 999"),
    ],
)
def test_what_cannot_be_is_refused(override, word):
    with pytest.raises(Exception, match=word):
        resolve("tiny", None, ["method=ddl_cxr", override])
