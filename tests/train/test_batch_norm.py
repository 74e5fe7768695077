"""Batch norm over ranks, on one rank. Two ranks are held to one in tests/parity/test_workers.py."""

import copy

import pytest
import torch
from torch import nn

from namd.config.seeding import generator
from namd.train.batch_norm import GlobalBatchNorm, with_global_batch_norm


def rows(*shape: int) -> torch.Tensor:
    values = generator("batch-norm", *shape).normal(1.0, 2.0, size=shape)
    return torch.from_numpy(values).float().requires_grad_()


@pytest.mark.parametrize(
    ("plain", "shape"),
    [
        (nn.BatchNorm1d(3), (6, 3)),
        (nn.BatchNorm2d(3), (4, 3, 5, 5)),
        (nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
        (nn.BatchNorm2d(3, affine=False), (4, 3, 5, 5)),
        (nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 5)),
    ],
)
def test_on_one_rank_it_is_the_plain_batch_norm(plain, shape):
    ours = with_global_batch_norm(nn.Sequential(copy.deepcopy(plain)))
    assert isinstance(ours[0], GlobalBatchNorm)
    for _ in range(2):
        theirs_in, ours_in = rows(*shape), rows(*shape)
        expected, found = plain(theirs_in), ours(ours_in)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        (expected**3).sum().backward()
        (found**3).sum().backward()
        torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-4, atol=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[f"0.{name}"], value, rtol=1e-5, atol=1e-5)
    plain.eval()
    ours.eval()
    # Running statistics are formed in another order: equal to rounding.
    torch.testing.assert_close(ours(ours_in), plain(ours_in), rtol=1e-5, atol=1e-5)


def test_parameters_and_buffers_stay_the_same_objects():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    after = with_global_batch_norm(model)
    assert after is model
    changed = dict(after.named_parameters()) | dict(after.named_buffers())
    assert changed.keys() == before.keys()
    assert all(changed[name] is before[name] for name in before)
