"""Stages `pretrain` and `finetune`: whose latents, whose report, which split, which time point."""

import numpy as np
import pytest
import torch
from torch import nn

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.diffusion.schedule import noise_schedule
from namd.methods.namd import finetune, pretrain
from namd.methods.namd.finetune import RecordContext
from namd.methods.shared import denoiser_files, quick_draws
from namd.methods.shared import latents as latents_stage
from namd.methods.shared.crop_set import read_pairs
from namd.methods.shared.denoising import DenoisingObjective
from namd.methods.shared.diffusion_settings import ReportSettings
from namd.methods.shared.latents import PairedLatents, load_latents
from namd.methods.shared.quick_draws import METRIC, QuickDraws
from namd.methods.shared.reports import reports_of
from tests.methods import made

SCALE, NULL = 4.0, -7.0
WIDTH = made.WIDTH


def encoded(monkeypatch, tmp_path, *overrides):
    """The `latents` artifact of the hand-made cohort under the folding autoencoder."""
    monkeypatch.setattr(latents_stage, "load_vae", lambda _folder: (made.FoldingVAE(), SCALE))
    context = made.context(tmp_path, *overrides)
    list(latents_stage.run(context))
    return {"latents": tmp_path / "out"}


@pytest.fixture
def finetuned(monkeypatch, tmp_path):
    """Stage `finetune` on hand-made parts; by phase, (baseline's case, age read) of its inputs."""

    def tuned(*overrides):
        inputs = encoded(monkeypatch, tmp_path)
        unet = made.NotingUNet()
        monkeypatch.setattr(
            finetune, "load_denoiser", lambda _folder: (unet, made.null_context(NULL))
        )
        monkeypatch.setattr(finetune, "condition_on_latents", lambda _unet, _added: None)
        monkeypatch.setattr(finetune, "build_context", lambda *_arguments: made.AgeReader())
        monkeypatch.setattr(quick_draws, "load_vae", lambda _folder: (made.FoldingVAE(), SCALE))
        monkeypatch.setattr(finetune, "save_denoiser", lambda *_parts: None)
        noted = made.noted_fit(monkeypatch, finetune)
        phases = []

        def mark():
            phases.append(len(unet.seen))

        context = made.context(tmp_path, *made.FINETUNE, *overrides, inputs=inputs)
        steps = finetune.run(context)
        next(steps)
        mark()
        noted["mark"] = mark
        list(steps)
        first, second = phases
        seen = [whose(*pair) for pair in unet.seen]
        return seen[:first], seen[first:second], seen[second:], noted

    return tuned


def whose(sample, states):
    """The case of each baseline that the network was shown, and the age that it was given."""
    condition = sample[:, 4:] / SCALE
    return made.which(condition), states[:, 0, 0].tolist()


def test_each_baseline_comes_with_the_report_of_its_own_case(finetuned):
    before, validation, after, _ = finetuned()
    for phase, split in ((before, "train"), (validation, "validation"), (after, "train")):
        cases = {case for seen, _ in phase for case in seen}
        assert cases <= set(made.FOLLOWED[split]), split
        assert all(
            age == 40 + case for seen, ages in phase for case, age in zip(seen, ages, strict=True)
        )
    assert {case for seen, _ in validation for case in seen} == set(made.FOLLOWED["validation"])


def test_both_readings_of_a_pair_are_learnt_from_the_followup(finetuned):
    *_, noted = finetuned()
    batch = noted["batches"](3)
    images = nn.functional.pixel_shuffle(batch.latents / SCALE, 2)
    assert made.which(images) == [made.FOLLOWED["train"][case] + 0.5 for case in batch.cases]


def test_records_are_dropped_at_the_stated_rate_in_training_alone(finetuned):
    before, validation, after, noted = finetuned("finetune.condition_dropout=0.5")
    dropped = [age == NULL for _, ages in before + after for age in ages]
    assert 0 < sum(dropped) < len(dropped)
    assert all(age != NULL for _, ages in validation for age in ages)
    share = np.mean([float(noted["batches"](step).drop.mean()) for step in range(40)])
    assert share == pytest.approx(0.5, abs=0.12)


def test_quick_draws_are_measured_in_mm_on_validation(finetuned):
    *_, noted = finetuned()
    metrics = noted["metrics"]
    assert metrics["validation_loss"] > 0
    assert METRIC not in metrics, "no nodule stands out on a level picture"


def test_quick_draws_decode_scaled_latents_beside_the_real_followups(monkeypatch, tmp_path):
    inputs = encoded(monkeypatch, tmp_path)
    given = {}

    def noted(*positional, **named):
        given.update(named, positional=positional)
        return object.__new__(QuickDraws)

    monkeypatch.setattr(quick_draws, "QuickDraws", noted)
    monkeypatch.setattr(quick_draws, "load_vae", lambda _folder: (made.FoldingVAE(), SCALE))
    record = RecordContext(made.AgeReader(), made.null_context(NULL))
    context = made.context(tmp_path, *made.FINETUNE, inputs=inputs)
    held_out = load_latents(inputs["latents"], "validation")
    schedule = noise_schedule(context.settings.noise_schedule)
    objective = DenoisingObjective(made.NotingUNet(), record, schedule)
    finetune._quick_draws(context, objective, record, held_out)
    cases = made.FOLLOWED["validation"]
    _, states_of, decode, _ = given["positional"]
    assert made.which(nn.functional.pixel_shuffle(given["condition"] / SCALE, 2)) == cases
    assert made.which(decode(given["condition"])) == cases
    assert made.which(given["followup"]) == [case + 0.5 for case in cases]
    assert given["case_ids"] == [f"c{case:02d}" for case in cases]
    record.reports = reports_of(made.cohort(), ReportSettings())
    assert states_of(np.array([4, 2]))[:, 0, 0].tolist() == [44.0, 42.0]


def test_a_dropped_record_is_the_null_token_and_a_kept_one_its_report():
    record = RecordContext(made.AgeReader(), made.null_context(NULL))
    record.reports = [f"of a {age} years old patient" for age in (50, 60, 70)]
    states = record(np.array([2, 0, 1]), torch.tensor([0.0, 1.0, 0.0]))
    assert states.shape == (3, 2, WIDTH)
    assert states[:, :, 0].tolist() == [[70.0, 70.0], [NULL, NULL], [60.0, 60.0]]


def test_reports_come_in_the_order_of_the_cases_with_what_is_included():
    cohort = made.cohort()
    found = reports_of(cohort, ReportSettings())
    assert [f"{40 + n} years old" in text for n, text in enumerate(found)] == [True] * len(cohort)
    few = reports_of(cohort, ReportSettings(include=("SCT_LONG_DIA", "SCT_PERP_DIA")))
    assert not any("years" in text for text in few)
    assert "5 mm in size" in few[0]
    both = reports_of(cohort, ReportSettings(("SCT_LONG_DIA", "SCT_PERP_DIA"), perpendicular=True))
    assert "5 x 4 mm" in both[0]


@pytest.fixture
def pretrained(monkeypatch, tmp_path):
    inputs = encoded(monkeypatch, tmp_path)
    unet, saved = made.NotingUNet(), []
    monkeypatch.setattr(pretrain, "context_width", lambda *_arguments: WIDTH)
    monkeypatch.setattr(pretrain, "build_unet", lambda *_arguments: unet)
    monkeypatch.setattr(pretrain, "save_denoiser", lambda *parts: saved.append(parts))
    noted = made.noted_fit(monkeypatch, pretrain)
    context = made.context(
        tmp_path, "pretrain.batch_size=7", "pretrain.num_epochs=3", inputs=inputs
    )
    steps = pretrain.run(context)
    next(steps)
    first = len(unet.seen)
    list(steps)
    return unet, noted, first, saved


def test_pretraining_sees_both_time_points_of_train_patients_without_a_record(pretrained):
    unet, noted, _, ((kept, _null, _folder),) = pretrained
    assert kept is unet
    cases = made.FOLLOWED["train"]
    batches = [noted["batches"](step) for step in range(2 * len(cases) // 7)]
    images = nn.functional.pixel_shuffle(torch.cat([b.latents for b in batches]) / SCALE, 2)
    assert sorted(made.which(images)) == sorted([*cases, *(case + 0.5 for case in cases)])
    assert noted["state"].num_steps == 3 * (2 * len(cases) // 7)
    assert all(sample.shape[1] == 4 for sample, _ in unet.seen)
    assert all((states == 0).all() for _, states in unet.seen), "one token, as it was initialised"


def test_pretraining_is_validated_on_both_time_points_of_validation_patients(pretrained):
    unet, _, first, _ = pretrained
    held_out = [sample for sample, _ in unet.seen[first:-1]]
    assert [len(sample) for sample in held_out] == [2 * len(made.FOLLOWED["validation"])] * 4


def test_the_null_token_survives_its_file(tmp_path):
    class Folder(made.NotingUNet):
        def save_pretrained(self, folder, **_options):
            folder.mkdir()

    denoiser_files.save_denoiser(Folder(), made.null_context(NULL), tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser_files, "load_diffusers", lambda *_arguments: made.NotingUNet())
        _, null = denoiser_files.load_denoiser(tmp_path)
    assert torch.equal(null(2), torch.full((2, 1, WIDTH), NULL))


def test_latents_are_scaled_posteriors_of_each_time_point_in_the_order_of_their_ids(
    monkeypatch, tmp_path
):
    folder = encoded(monkeypatch, tmp_path, "image.rotations=all")["latents"]
    for split in ("train", "validation"):
        held = load_latents(folder, split)
        assert held.case_ids.tolist() == [f"c{case:02d}" for case in made.FOLLOWED[split]]
        assert held.num_angles == (8 if split == "train" else 1)
        cohort = made.cohort().select(made.FOLLOWED[split])
        for posterior, stored in (
            (held.baseline, cohort.baseline),
            (held.followup, cohort.followup),
        ):
            assert (0.5 * posterior.logvar).exp().mean() == pytest.approx(SCALE * made.DEVIATION)
            unscaled = posterior.mean / SCALE
            for number in range(held.num_angles):
                images = nn.functional.pixel_shuffle(unscaled[number], 2)[:, 0].numpy()
                wanted = to_unit(stored[:, 4:-4, 4:-4])
                if number % 2:
                    continue
                turned = np.rot90(wanted, number // 2, (1, 2))
                np.testing.assert_allclose(images, turned, atol=1e-5)
    pairs = load_latents(folder, "train")
    moved = pairs.followup.mean - pairs.baseline.mean
    level = SCALE * (made.unit(0.5) - made.unit(0))
    for number in range(pairs.num_angles):
        np.testing.assert_allclose(moved[number].numpy(), level, atol=0.01)


def test_more_crops_than_a_batch_are_encoded_each_once(tmp_path):
    hu = np.stack([made.crop(n % 18) for n in range(150)])[:, 4:-4, 4:-4]
    posterior = latents_stage.encode_crops(made.FoldingVAE(), hu, made.context(tmp_path))
    images = nn.functional.pixel_shuffle(posterior.mean, 2)[:, 0].numpy()
    np.testing.assert_allclose(images, to_unit(hu), atol=1e-6)


def test_paired_latents_keep_their_time_points_apart():
    tensors = {
        f"{name}_{part}": torch.full((1, 2, 1, 1, 1), float(value))
        for value, (name, part) in enumerate(
            (name, part) for name in ("baseline", "followup") for part in ("mean", "logvar")
        )
    }
    held = PairedLatents(tensors, np.array(["a", "b"]))
    values = [held.baseline.mean, held.baseline.logvar, held.followup.mean, held.followup.logvar]
    assert [float(value.mean()) for value in values] == [0.0, 1.0, 2.0, 3.0]
    assert len(held) == 2


def test_a_cohort_without_followups_in_a_split_pairs_nothing(tmp_path):
    context = made.context(tmp_path)
    held = read_pairs(context.cohort, "validation")
    assert isinstance(held, Cohort)
    assert held.table["case_id"].tolist() == [f"c{n:02d}" for n in made.FOLLOWED["validation"]]
