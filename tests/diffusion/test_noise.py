import pytest
import torch

from namd.diffusion.noise import draw_noise, rank_rows, training_noise, training_timesteps

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


def test_training_draws_are_the_global_batch_cut_by_rank():
    whole = training_noise(1, "finetune", 5, 8, SHAPE)
    parts = [whole[rank_rows(8, rank, 2)] for rank in range(2)]
    assert torch.equal(torch.cat(parts), training_noise(1, "finetune", 5, 8, SHAPE))
    assert not torch.equal(parts[0], parts[1])


def test_training_draws_differ_by_stage_step_and_purpose():
    one = training_noise(1, "finetune", 5, 2, SHAPE)
    others = [
        training_noise(2, "finetune", 5, 2, SHAPE),
        training_noise(1, "pretrain", 5, 2, SHAPE),
        training_noise(1, "finetune", 6, 2, SHAPE),
        training_noise(1, "finetune", 5, 2, SHAPE, purpose="posterior-noise"),
    ]
    assert all((one - other).abs().max() > 0.5 for other in others)


def test_timesteps_cover_the_whole_schedule():
    timesteps = torch.cat([training_timesteps(1, "vae", step, 64, 10) for step in range(20)])
    assert timesteps.dtype == torch.int64
    assert set(timesteps.tolist()) == set(range(10))
    again = training_timesteps(1, "vae", 0, 64, 10)
    assert torch.equal(again, timesteps[:64])
    assert not torch.equal(again, timesteps[64:128])


def test_ranks_hold_equally_many_rows():
    assert rank_rows(8, 1, 4) == slice(2, 4)
    with pytest.raises(ValueError, match="8 does not split over 3"):
        rank_rows(8, 0, 3)
