import pytest
import torch

from namd.diffusion.noise import draw_noise, training_noise

SHAPE = (4, 8, 8)


def test_noise_of_a_draw_depends_on_seed_case_and_k_alone():
    together = draw_noise(7, ["a", "b", "c"], 3, SHAPE)
    for row, case_id in zip(together, ["a", "b", "c"], strict=True):
        assert torch.equal(draw_noise(7, [case_id], 3, SHAPE)[0], row)
    assert torch.equal(draw_noise(7, ["c", "a"], 3, SHAPE), together[[2, 0]])


@pytest.mark.parametrize(("seed", "case_id", "k"), [(8, "a", 3), (7, "b", 3), (7, "a", 4)])
def test_another_seed_case_or_draw_is_another_noise(seed, case_id, k):
    one, other = draw_noise(7, ["a"], 3, SHAPE), draw_noise(seed, [case_id], k, SHAPE)
    assert (one - other).abs().max() > 0.5


def test_noise_is_standard_normal():
    noise = draw_noise(0, range(400), 0, SHAPE)
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    correlation = torch.corrcoef(noise.flatten(1)[:50])
    assert (correlation - torch.eye(50)).abs().max() < 0.35


def test_no_cases_no_noise():
    assert draw_noise(0, [], 0, SHAPE).shape == (0, *SHAPE)


def test_training_draws_differ_by_stage_step_and_purpose():
    one = training_noise(1, "finetune", 5, 2, SHAPE)
    others = [
        training_noise(2, "finetune", 5, 2, SHAPE),
        training_noise(1, "pretrain", 5, 2, SHAPE),
        training_noise(1, "finetune", 6, 2, SHAPE),
        training_noise(1, "finetune", 5, 2, SHAPE, purpose="posterior-noise"),
    ]
    assert all((one - other).abs().max() > 0.5 for other in others)
