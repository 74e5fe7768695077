"""The drawer of latent diffusion, and stage `draws`: scale, guidance, records, noise, index."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from namd.data.intensity import to_unit
from namd.diffusion.noise import draw_noise
from namd.methods.namd import latent_diffusion
from namd.methods.namd.latent_diffusion import LatentDiffusionDrawer
from namd.methods.shared import draws as draws_stage
from namd.methods.shared import latent_draws
from tests.methods import made

SCALE, NULL = 4.0, 10.0
GUIDED = ("finetune.condition_dropout=0.1", "draws.guidance_scale=3")


class Prepared:
    """Stands for the U-Net: it predicts the baseline's latents, and a hundredth of the state."""

    bound: ClassVar[list] = []

    def __init__(self, unet, timesteps, precision):
        Prepared.bound = []

    def bind(self, condition, states):
        Prepared.bound.append((condition, states))
        age = states.mean((1, 2))[:, None, None, None] / 100
        return lambda latents, timestep: condition * 0 + age


@pytest.fixture
def drawer_of(monkeypatch, tmp_path):
    """A drawer over the test split; sampling returns the prediction plus its noise if asked."""

    def drawer(*overrides, sample=lambda predict, noise: predict(noise, 1)):
        null = made.null_context(NULL)
        monkeypatch.setattr(latent_draws, "load_vae", lambda _folder: (made.FoldingVAE(), SCALE))
        monkeypatch.setattr(
            latent_draws, "load_denoiser", lambda _folder: (made.NotingUNet(), null)
        )
        monkeypatch.setattr(latent_diffusion, "load_context", lambda *_arguments: made.AgeReader())
        monkeypatch.setattr(latent_draws, "PreparedUNet", Prepared)
        calls = []

        def ddim(predict, noise, schedule, settings, step_noise=None):
            calls.append((noise, step_noise))
            return sample(predict, noise)

        monkeypatch.setattr(latent_draws, "ddim_sample", ddim)
        context = made.context(tmp_path, *overrides)
        cohort = made.cohort().select(made.SPLITS["test"])
        made_drawer = LatentDiffusionDrawer(context, cohort)
        made_drawer.calls = calls
        return made_drawer

    return drawer


def levels(images):
    return images.mean((1, 2, 3)).tolist()


def test_the_condition_is_the_scaled_posterior_mean_of_the_case_and_decoding_undoes_the_scale(
    drawer_of,
):
    drawer = drawer_of()
    everyone = np.arange(len(drawer))
    images = made.cohort().select(made.SPLITS["test"]).baseline[:, 4:-4, 4:-4]
    drawer.draw(everyone, 0)
    ((condition, _),) = Prepared.bound
    wanted = SCALE * nn.functional.pixel_unshuffle(torch.from_numpy(to_unit(images))[:, None], 2)
    torch.testing.assert_close(condition, wanted)
    back = drawer_of(sample=lambda _predict, _noise: wanted).draw(everyone, 0)
    torch.testing.assert_close(back[:, 0], torch.from_numpy(to_unit(images)))


def test_a_case_is_drawn_from_its_own_baseline_record_and_noise(drawer_of):
    drawer = drawer_of()
    drawn = drawer.draw(np.array([3, 1]), 2)
    condition, states = Prepared.bound[-1]
    assert made.which(condition / SCALE) == [16, 14]
    assert states[:, 0, 0].tolist() == [56.0, 54.0]
    assert levels(drawn) == pytest.approx([0.56 / SCALE, 0.54 / SCALE])
    noise, _ = drawer.calls[-1]
    assert torch.equal(noise, draw_noise(0, ["c16", "c14"], 2, (4, 8, 8)))


def test_draw_indices_seeds_and_sampling_steps_have_noise_of_their_own(drawer_of):
    cases = np.arange(5)
    found = []
    for seed in (0, 1):
        drawer = drawer_of(f"draw_seed={seed}")
        for index in (0, 1):
            drawer.draw(cases, index)
            noise, step_noise = drawer.calls[-1]
            found += [noise, step_noise(0), step_noise(1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_guidance_goes_from_the_null_token_through_the_record_and_beyond(drawer_of):
    plain = drawer_of("finetune.condition_dropout=0.1").draw(np.array([0]), 0)
    assert levels(plain) == pytest.approx([0.53 / SCALE])
    guided = drawer_of(*GUIDED).draw(np.array([0]), 0)
    assert levels(guided) == pytest.approx([(0.1 + 3 * (0.53 - 0.1)) / SCALE])
    assert made.which(Prepared.bound[0][0] / SCALE) == made.which(Prepared.bound[1][0] / SCALE)


def test_images_are_clamped_after_decoding(drawer_of):
    wild = drawer_of(sample=lambda _predict, noise: 9 * noise).draw(np.arange(5), 0)
    assert float(wild.min()) == -1.0
    assert float(wild.max()) == 1.0


def test_a_shuffled_record_is_another_cases_and_the_own_one_is_not(drawer_of):
    own = [40.0 + case for case in made.SPLITS["test"]]
    assert drawer_of().states[:, 0, 0].tolist() == own
    shuffled = drawer_of("draws.record=shuffled").states[:, 0, 0].tolist()
    assert shuffled != own
    assert sorted(shuffled) == own


class CountingDrawer:
    """A case's images hold its number and the draw's index."""

    batch_size, device = 2, "cpu"

    def __init__(self, context, cohort):
        self.numbers = [int(case[1:]) for case in cohort.table["case_id"]]

    def __len__(self):
        return len(self.numbers)

    def draw(self, cases, index):
        values = torch.tensor([self.numbers[case] / 100 + index / 4 for case in cases])
        return values[:, None, None, None].expand(-1, 1, 2, 2)


def drawn(tmp_path, *overrides, split="test"):
    """The (index, case, level) of every image that the stage leaves."""
    outputs = {k: tmp_path / f"draw{k}" for k in (1, 3)}
    for folder in outputs.values():
        folder.mkdir(exist_ok=True)
    values = {"split": split, "drawer": f"{__name__}:CountingDrawer"}
    context = made.context(tmp_path, *overrides, values=values, outputs=outputs)
    steps = list(draws_stage.run(context))
    assert [(step.index, step.total, step.finished) for step in steps] == [(1, 2, 1), (2, 2, 3)]
    found = {}
    for k, folder in outputs.items():
        images = load_file(folder / "images.safetensors")["images"]
        assert images.dtype == torch.float16
        ids = pd.read_parquet(folder / "cases.parquet")["case_id"].tolist()
        found[k] = dict(zip(ids, images.float().mean((1, 2)).tolist(), strict=True))
    return found


def test_every_index_is_drawn_for_every_case_of_the_split_and_kept_under_its_own(
    tmp_path,
):
    found = drawn(tmp_path, "evaluate.num_cases=null")
    cases = made.SPLITS["test"]
    for k, images in found.items():
        assert images == pytest.approx(
            {f"c{case:02d}": case / 100 + k / 4 for case in cases}, abs=1e-3
        )
    held_out = drawn(tmp_path, "evaluate.num_cases=null", split="validation")
    assert set(held_out[1]) == {f"c{case:02d}" for case in made.SPLITS["validation"]}


def test_a_subset_grows_until_it_holds_enough_malignant_cases(tmp_path):
    def cases(number, malignant):
        context = made.context(
            tmp_path,
            f"evaluate.num_cases={number}",
            f"evaluate.minimum_malignant={malignant}",
            values={"split": "test"},
        )
        return draws_stage.evaluation_cases(context).table

    assert len(cases(2, 0)) == 2
    grown = cases(1, 3)
    assert (grown["label"] == 1).sum() == 3
    assert set(grown["split"]) == {"test"}
