"""A draw depends on (draw seed, case, index) alone, and on its own baseline and record."""

import numpy as np
import pytest
import torch
from torch import nn

from namd.data.cohort import Cohort
from namd.diffusion.noise import draw_noise
from namd.evaluate.diameter import longest_diameter
from namd.methods.flux import drawing
from namd.methods.flux.drawing import FluxDrawer
from namd.methods.flux.objective import RectifiedFlow
from namd.methods.flux.quick_draws import METRIC, QuickDraws
from namd.sample.draws import draw
from tests.methods import made as crops
from tests.methods.flux import made

ORDER = np.array([3, 0, 2])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A flow whose velocity is not zero everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("flux")
        found = made.encoded(patch, folder / "inputs")
        steps = ("flux.num_steps=12", "flux.learning_rate=0.01", "flux.keep=last")
        return found | {made.STAGE: made.trained(folder / "run", found, *steps)}


@pytest.fixture
def drawer(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "load_vae", lambda _folder: (crops.FoldingVAE(), made.SCALE))

    def bound(*overrides, cohort=None):
        context = made.context(tmp_path, inputs, *overrides)
        with torch.no_grad():
            return FluxDrawer(context, cases() if cohort is None else cohort)

    return bound


def cases() -> Cohort:
    cohort = crops.cohort()
    return cohort.select(np.array(crops.FOLLOWED["test"]))


def test_neither_batch_nor_order_nor_the_other_cases_matter(drawer):
    images = draw(drawer(), 1)
    assert images.shape == (4, 1, crops.SIZE, crops.SIZE)
    assert images.abs().max() <= 1
    few = drawer(cohort=cases().select(ORDER))
    assert torch.allclose(draw(few, 1), images[ORDER], atol=1e-5)
    few.batch_size = 1
    assert torch.allclose(draw(few, 1), images[ORDER], atol=1e-5)
    assert torch.equal(draw(drawer(), 1), images)
    # Twin: another case, another index and another seed are other images.
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(draw(drawer(), 0), images, atol=1e-3)
    assert not torch.allclose(draw(drawer("draw_seed=1"), 1), images, atol=1e-3)


def conditions(drawer, monkeypatch):
    """Baselines and records that each evaluation of the velocity is given."""
    seen = []
    real = RectifiedFlow.bound

    def noted(self, condition, record):
        seen.append((condition, record))
        return real(self, condition, record)

    monkeypatch.setattr(RectifiedFlow, "bound", noted)
    draw(drawer, 0)
    condition, record = seen[0]
    images = torch.nn.functional.pixel_shuffle(condition / made.SCALE, 2)
    return crops.which(images), record


def test_every_case_has_its_own_baseline_and_record(drawer, monkeypatch):
    own = drawer()
    whose, record = conditions(own, monkeypatch)
    assert whose == crops.FOLLOWED["test"]
    assert torch.equal(record, own.record)
    assert len({tuple(row) for row in record.tolist()}) == len(record)
    other, shuffled = conditions(drawer("draws.record=shuffled"), monkeypatch)
    assert other == whose
    assert not torch.equal(shuffled, record)
    assert sorted(shuffled.tolist()) == sorted(record.tolist())


def test_baseline_and_record_change_the_draw(drawer):
    images = draw(drawer(), 0)
    cohort = cases()
    cohort.baseline = np.roll(np.asarray(cohort.baseline), 1, axis=0)
    assert not torch.allclose(draw(drawer(cohort=cohort), 0), images, atol=1e-3)
    older = cases()
    older.table["age"] += 20
    assert not torch.allclose(draw(drawer(cohort=older), 0), images, atol=1e-4)
    later = cases()
    later.followup = np.roll(np.asarray(later.followup), 1, axis=0)
    assert torch.equal(draw(drawer(cohort=later), 0), images)


def test_a_sampled_baseline_is_another_at_every_index(drawer, monkeypatch):
    sampling, seen = drawer("flux.baseline_latent=sample"), []

    def noted(condition, _record):
        seen.append(condition)
        return lambda latents, _level: latents

    monkeypatch.setattr(sampling.flow, "bound", noted)
    for index in (0, 1):
        sampling.draw(np.arange(4), index)
    assert float((seen[0] - seen[1]).abs().mean()) > 0.01
    noise = (seen[0] - sampling.baseline.mean) / torch.exp(0.5 * sampling.baseline.logvar)
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    start = draw_noise(0, sampling.case_ids, 0, (4, 8, 8))
    assert torch.corrcoef(torch.stack([noise.flatten(), start.flatten()]))[0, 1].abs() < 0.1


def test_steps_and_their_shift_are_those_that_are_set(drawer, monkeypatch):
    def levels(*overrides):
        own, seen = drawer(*overrides), []
        monkeypatch.setattr(
            own.flow,
            "bound",
            lambda *_given: lambda latents, level: seen.append(level) or latents,
        )
        own.draw(np.arange(2), 0)
        return seen

    assert levels("draws.num_inference_steps=4", "draws.dynamic_shift=false") == [
        1.0,
        0.75,
        0.5,
        0.25,
    ]
    shifted = levels("draws.num_inference_steps=4")
    assert shifted[0] == 1.0
    assert all(high > low for high, low in zip(shifted[1:], [0.75, 0.5, 0.25], strict=True))


def test_a_flow_that_ends_at_its_baseline_draws_the_baseline(drawer, monkeypatch):
    own = drawer()
    monkeypatch.setattr(
        own.flow,
        "bound",
        lambda condition, _record: lambda latents, level: (latents - condition) / level,
    )
    assert crops.which(own.draw(np.arange(4), 0)) == crops.FOLLOWED["test"]


class Still(RectifiedFlow):
    """A velocity that ends at a picture, whatever the noise."""

    def __init__(self, picture):
        nn.Module.__init__(self)
        self.picture = picture

    def bound(self, _condition, _record):
        return lambda latents, level: (latents - self.picture) / level


def discs(radii, size=32):
    rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
    inside = np.hypot(rows, columns)[None] < np.array(radii)[:, None, None]
    return np.where(inside, 0.3, -0.9).astype(np.float32)


def quick(picture, followup, spacing):
    count = len(followup)
    return QuickDraws(
        Still(torch.from_numpy(picture)[:, None]),
        lambda latents: latents,
        condition=torch.zeros(count, 1, 32, 32),
        record=torch.zeros(count, 3),
        followup=followup,
        spacing_mm=spacing,
        case_ids=[f"c{n}" for n in range(count)],
        precision="fp32",
        device="cpu",
    )()


def test_quick_draws_measure_drawn_diameters_in_mm():
    """Two equal draws have the CRPS of one: their distance from the truth."""
    truth, spacing = discs([4, 6]), np.array([0.5, 1.0])
    real = longest_diameter(truth, spacing)
    assert quick(truth, truth, spacing)[METRIC] == pytest.approx(0, abs=1e-5)
    wider = np.abs(longest_diameter(discs([6, 8]), spacing) - real).mean()
    assert wider > 2
    assert quick(discs([6, 8]), truth, spacing)[METRIC] == pytest.approx(wider, abs=1e-4)
    # A draw without a nodule has a diameter of 0; without real ones there is nothing to measure.
    level = np.full((2, 32, 32), -0.9, np.float32)
    assert quick(level, truth, spacing)[METRIC] == pytest.approx(real.mean(), abs=1e-4)
    assert quick(truth, level, spacing) == {}
