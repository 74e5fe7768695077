"""Batches of cases: order, threads and gradients."""

import threading

import numpy as np
import pytest
import torch

from namd.config.threads import fixed_threads
from namd.sample.draws import draw, map_batches


class Numbers:
    """Draws images that hold the case's number and the draw's; notes where it was called."""

    def __init__(self, count=7, device="cpu"):
        self.count, self.device, self.batch_size = count, device, 2
        self.calls = []

    def __len__(self):
        return self.count

    def draw(self, cases, index):
        here = threading.current_thread() is threading.main_thread()
        self.calls.append((here, torch.get_num_threads(), torch.is_grad_enabled()))
        values = torch.from_numpy(cases).double() + 100 * index
        return values.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def numbers(images):
    assert images.dtype == torch.float32
    return images[:, 0, 0, 0].tolist()


def test_cases_come_in_order_from_one_thread_a_batch():
    drawer = Numbers()
    assert numbers(draw(drawer, 3)) == [300.0 + case for case in range(7)]
    assert set(drawer.calls) == {(False, 1, False)}
    assert torch.get_num_threads() == 2


def test_cases_can_be_chosen():
    assert numbers(draw(Numbers(), 0, np.array([5, 1, 4]))) == [5.0, 1.0, 4.0]


@pytest.mark.parametrize(("count", "device", "threads"), [(2, "cpu", 1), (7, "cuda:0", 2)])
def test_one_batch_or_an_accelerator_stays_in_the_callers_thread(count, device, threads):
    drawer = Numbers(count, device)
    assert numbers(draw(drawer, 0)) == [float(case) for case in range(count)]
    assert set(drawer.calls) == {(True, threads, False)}
    assert torch.get_num_threads() == 2


def test_a_stage_of_one_thread_still_shares_batches_out():
    drawer = Numbers()
    with fixed_threads(1):
        draw(drawer, 0)
    assert set(drawer.calls) == {(False, 1, False)}


def test_an_error_in_a_batch_is_raised_and_the_threads_are_given_back():
    def fail(batch):
        if batch == 2:
            raise ValueError("batch 2")
        return batch

    with pytest.raises(ValueError, match="batch 2"):
        map_batches(fail, [1, 2, 3], "cpu")
    assert torch.get_num_threads() == 2
