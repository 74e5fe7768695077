"""The metric in mm that stands at fractions of `finetune`."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import NoiseScheduleSettings
from namd.evaluate.diameter import longest_diameter
from namd.methods.shared.quick_draws import CASES, METRIC, QuickDraws

SIZE, SPACING = 64, 0.7


def disc(diameter_mm):
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    inside = np.hypot(x, y) * SPACING < diameter_mm / 2
    return np.where(inside, 0.3, -0.9).astype(np.float32)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(8, 4, 3, padding=1)
        self.seen = []

    def forward(self, joined, timestep, encoder_hidden_states):
        self.seen.append((joined.detach().clone(), encoder_hidden_states))
        return SimpleNamespace(sample=self.convolution(joined))


def quick_draws(followup_mm, drawn_mm, net=None, count=5, states_of=None, condition=None):
    return QuickDraws(
        net or Net(),
        states_of or (lambda cases: torch.zeros(len(cases), 2, 3)),
        lambda latents: torch.from_numpy(disc(drawn_mm)).expand(len(latents), 1, SIZE, SIZE),
        noise_schedule(NoiseScheduleSettings(prediction_type="v_prediction")),
        condition=torch.zeros(count, 4, 8, 8) if condition is None else condition,
        followup=np.stack([disc(followup_mm)] * count),
        spacing_mm=np.full(count, SPACING),
        case_ids=[f"case-{number}" for number in range(count)],
        precision="fp32",
        device="cpu",
    )


def test_it_is_the_distance_of_the_diameters_in_mm():
    right, near, far = (quick_draws(10, drawn)()[METRIC] for drawn in (10, 12, 16))
    measured = [longest_diameter(disc(mm)[None], SPACING)[0] for mm in (10, 12, 16)]
    assert right == pytest.approx(0, abs=1e-6)
    assert near == pytest.approx(measured[1] - measured[0], abs=1e-6)
    assert far == pytest.approx(measured[2] - measured[0], abs=1e-6)


def test_a_draw_without_a_nodule_counts_as_0_mm():
    measured = longest_diameter(disc(10)[None], SPACING)[0]
    assert quick_draws(10, 0)()[METRIC] == pytest.approx(measured, abs=1e-6)


def test_nothing_is_said_where_no_followup_can_be_measured():
    assert quick_draws(0, 10)() == {}


def test_cases_are_spread_over_the_split_and_few():
    count = 10 * CASES
    asked = []

    def states_of(cases):
        asked.append(cases)
        return torch.zeros(len(cases), 2, 3)

    quick_draws(10, 10, count=count, states_of=states_of)()
    assert len(asked[0]) == CASES
    assert asked[0][0] == 0
    assert asked[0][-1] == count - 1


def test_each_case_is_drawn_beside_its_own_baseline_and_record():
    count, net, asked = 2 * CASES, Net(), []

    def states_of(cases):
        asked.append(cases)
        return torch.zeros(len(cases), 2, 3)

    baselines = torch.arange(count)[:, None, None, None].expand(-1, 4, 8, 8).float()
    quick_draws(10, 10, net, count, states_of, baselines)()
    joined, _ = net.seen[0]
    assert joined[:, 4:].mean((1, 2, 3)).tolist() == asked[0].tolist()
    assert asked[0].tolist() != list(range(CASES))


def test_the_same_is_drawn_each_time_and_the_training_is_not_touched():
    net = Net()
    measure = quick_draws(10, 12, net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    measure()
    first, net.seen = net.seen, []
    measure()
    pairs = zip(first, net.seen, strict=True)
    assert all(torch.equal(a[0], b[0]) for a, b in pairs)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()
    assert not torch.equal(first[0][0], first[10][0]), "the second draw has other noise"
