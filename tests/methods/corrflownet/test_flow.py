"""The path, its target, and both solvers against closed forms; each law with a twin that breaks."""

import numpy as np
import pytest
import torch

from namd.methods.corrflownet.flow import (
    FlowBatch,
    FlowObjective,
    build_network,
    euler_maruyama_step,
    euler_step,
    flow_target,
    followed,
    interpolated,
)
from namd.methods.corrflownet.settings import FlowSettings
from namd.models.initialisation import initialised_from

SMALL = FlowSettings(block_out_channels=(16, 16), norm_num_groups=4, attention_head_dim=8)
ENDS = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
BEFORE, AFTER = ENDS


def at(time, before=BEFORE, after=AFTER):
    return interpolated(before, after, torch.full((3,), time))


def path_is_right(path):
    return (
        torch.equal(path(0.0), BEFORE)
        and torch.equal(path(1.0), AFTER)
        and torch.allclose(path(0.25), 0.75 * BEFORE + 0.25 * AFTER)
    )


def test_the_path_leads_from_the_baseline_to_the_followup():
    assert path_is_right(at)
    # Twin: the other way round, as a flow from noise counts its time.
    assert not path_is_right(lambda time: at(time, AFTER, BEFORE))


def test_the_target_is_the_slope_of_the_path():
    slope = (at(0.75) - at(0.25)) / 0.5
    assert torch.allclose(flow_target(BEFORE, AFTER), slope, atol=1e-5)
    assert not torch.allclose(flow_target(AFTER, BEFORE), slope, atol=1e-1)


def test_each_case_has_its_own_time():
    mixed = interpolated(BEFORE, AFTER, torch.tensor([0.0, 1.0, 0.5]))
    assert torch.equal(mixed[0], BEFORE[0])
    assert torch.equal(mixed[1], AFTER[1])


def test_the_loss_is_the_squared_error_of_the_velocity():
    class Constant(FlowObjective):
        def velocity(self, latents, time, before):
            assert torch.equal(before, BEFORE)
            assert torch.equal(latents, interpolated(BEFORE, AFTER, time))
            return torch.full_like(latents, 0.5)

    loss = Constant(build_network(SMALL, 4, 8))(
        FlowBatch(BEFORE, AFTER, torch.tensor([0.1, 0.5, 0.9]))
    ).loss
    expected = np.mean((0.5 - (AFTER.numpy() - BEFORE.numpy())) ** 2)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_one_euler_step_by_hand():
    assert euler_step(torch.tensor([1.0, 2.0]), torch.tensor([0.5, -4.0]), 0.05).tolist() == (
        pytest.approx([1.025, 1.8])
    )


def test_one_noisy_step_by_hand():
    step = euler_maruyama_step(
        torch.tensor([1.0]), torch.tensor([2.0]), 0.25, 0.1, torch.tensor([3.0])
    )
    assert step.tolist() == pytest.approx([1.0 + 0.5 + 0.1 * 0.5 * 3.0])


def test_a_constant_velocity_reaches_the_followup_whatever_the_steps():
    target = flow_target(BEFORE, AFTER)
    for steps in (1, 7, 20):
        assert torch.allclose(followed(lambda _z, _t: target, BEFORE, steps), AFTER, atol=1e-5)


def test_times_run_from_zero_to_below_one():
    seen = []
    followed(lambda z, t: seen.append(t) or torch.zeros_like(z), BEFORE, 4)
    assert seen == [0.0, 0.25, 0.5, 0.75]


DRIFT, STRENGTH, STEPS, PATHS = -1.5, 0.4, 200, 20000


def moments(strength=STRENGTH):
    """Mean and variance of the SDE's end, simulated, for dz = a z dt + s dW from z = 2."""
    draws = np.random.default_rng(5)

    def noise(_step):
        return torch.from_numpy(draws.standard_normal(PATHS).astype(np.float32))

    end = followed(lambda z, _t: DRIFT * z, torch.full((PATHS,), 2.0), STEPS, strength, noise)
    return float(end.mean()), float(end.var())


def closed_form():
    """Mean z0 e^a and variance s^2 (e^(2a) - 1) / (2a) at t = 1 (Ornstein-Uhlenbeck)."""
    return 2 * np.exp(DRIFT), STRENGTH**2 * (np.exp(2 * DRIFT) - 1) / (2 * DRIFT)


def test_mean_and_variance_of_the_sde_are_those_of_the_closed_form():
    mean, variance = moments()
    expected_mean, expected_variance = closed_form()
    assert mean == pytest.approx(expected_mean, abs=0.01)
    assert variance == pytest.approx(expected_variance, rel=0.04)


def test_noise_that_is_not_scaled_by_the_root_of_the_step_is_found():
    # Twin: s dt n in place of s sqrt(dt) n.
    _, variance = moments(STRENGTH * (1 / STEPS) ** 0.5)
    assert variance < 0.1 * closed_form()[1]


def test_without_noise_the_sde_is_the_ode():
    def drift(z, t):
        return torch.sin(z) + t

    silent = followed(drift, BEFORE, 5, 0.0, lambda _step: torch.randn_like(BEFORE))
    assert torch.equal(silent, followed(drift, BEFORE, 5))


def test_untrained_the_flow_stands_still_and_it_learns_32_pairs():
    with initialised_from("test", 1):
        objective = FlowObjective(build_network(SMALL, 2, 4))
    draws = torch.Generator().manual_seed(1)
    before = torch.randn(32, 2, 4, 4, generator=draws)
    after = before.roll(1, 1) * 0.5 + 1
    assert torch.equal(followed(objective.bound(before), before, 3), before)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for _ in range(50):
        optimiser.zero_grad()
        objective(FlowBatch(before, after, torch.rand(32, generator=draws))).loss.backward()
        optimiser.step()
    with torch.no_grad():
        copied = float((before - after).square().mean())
        end = followed(objective.bound(before), before, 10)
        other = before.roll(1, 0)
        shuffled = followed(objective.bound(other), other, 10)
    assert float((end - after).square().mean()) < 0.3 * copied
    assert float((shuffled - after).square().mean()) > 2 * float((end - after).square().mean())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"block_out_channels": ()}, "at least one level"),
        ({"block_out_channels": (48,)}, "multiples of norm_num_groups 32, not"),
        ({"attention_head_dim": 24}, "multiples of attention_head_dim 24"),
        ({"layers_per_block": 0}, "layers_per_block"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(values, word):
    with pytest.raises(ValueError, match=word):
        FlowSettings(**values)
