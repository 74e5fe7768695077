"""Two gloo processes against one: loss and gradients of the global batch.

The workers are subprocesses of this very file, since DDP needs a process per rank.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from namd.config.seeding import generator
from namd.losses.alignment import alignment_loss
from namd.losses.gather import gather_rows, global_masked_mean
from namd.losses.prediction import prediction_loss
from namd.losses.total import LossTerm, weighted_sum

NUM_CASES = 8
WIDTHS = {"sigma_z": 1.0, "sigma_f": 1.0, "temperature": 0.5}
# Unequal on purpose: the first rank knows 4 labels and 2 complete cases, the second 1 and 4.
KNOWN = torch.tensor([True, True, True, True, False, False, True, False])
COMPLETE = torch.tensor([True, False, True, False, True, True, True, True])


def cases():
    rng = generator("test-gather")
    images, features = rng.standard_normal((NUM_CASES, 6)), rng.standard_normal((NUM_CASES, 3))
    labels = rng.integers(0, 2, NUM_CASES)
    return tuple(torch.from_numpy(array).float() for array in (images, features, labels))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        rng = generator("test-gather-weights")
        self.hidden, self.out, self.head = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 1)
        for parameter in self.parameters():
            parameter.data = torch.from_numpy(rng.standard_normal(parameter.shape)).float()

    def forward(self, images):
        z = self.out(torch.tanh(self.hidden(images)))
        return z, self.head(z)[:, 0]


def detached_rows(rows):
    return gather_rows(rows.detach())


def objective(model, rows, gather):
    """The two terms that need the global batch, beside one that does not."""
    images, features, labels = (tensor[rows] for tensor in cases())
    z, logits = model(images)

    def align():
        everyone = (gather(tensor) for tensor in (z, features, COMPLETE[rows]))
        latents, nodules, mask = everyone
        return alignment_loss(latents, nodules, mask=mask, **WIDTHS).loss

    return weighted_sum(
        [
            LossTerm("align", 1.0, align),
            LossTerm("pred", 0.2, lambda: prediction_loss(logits, labels, KNOWN[rows])),
            LossTerm("size", 0.1, lambda: z.square().mean()),
        ]
    )


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def average_over_ranks(model):
    """What DDP does after a backward pass; its wrapper takes ten seconds to import."""
    for parameter in model.parameters():
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= torch.distributed.get_world_size()


def backward(rows, gather, wrap):
    model = Encoder()
    wrapped = nn.parallel.DistributedDataParallel(model) if wrap else model
    step = objective(wrapped, rows, gather)
    step.loss.backward()
    if not wrap:
        average_over_ranks(model)
    return dict(step.metrics), gradients(model)


def work(rank, size, folder, wrap):
    """One rank's forward and backward passes, with the gather and with its broken twin."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    share = NUM_CASES // size
    rows = slice(rank * share, (rank + 1) * share)
    results = {
        "gathered": backward(rows, gather_rows, wrap),
        "detached": backward(rows, detached_rows, wrap),
    }
    torch.save(results, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def two_processes(folder, wrap):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), "2", str(folder), str(int(wrap))],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "ddp"]
)
def ranks(request, tmp_path_factory):
    return two_processes(tmp_path_factory.mktemp("ranks"), wrap=request.param)


@pytest.fixture(scope="module")
def alone():
    model = Encoder()
    step = objective(model, slice(0, NUM_CASES), gather_rows)
    step.loss.backward()
    return step.metrics, gradients(model)


def test_two_processes_have_the_gradients_of_one(ranks, alone):
    metrics, expected = alone
    for rank in ranks:
        rank_metrics, rank_gradients = rank["gathered"]
        for name, gradient in expected.items():
            torch.testing.assert_close(rank_gradients[name], gradient, rtol=1e-5, atol=1e-5)
        for name in ("align", "pred"):
            torch.testing.assert_close(rank_metrics[name], metrics[name], rtol=1e-5, atol=1e-6)


def test_a_gather_that_cuts_gradients_is_found_out(ranks, alone):
    _, expected = alone
    _, cut = ranks[0]["detached"]
    assert (cut["hidden.weight"] - expected["hidden.weight"]).abs().max() > 1e-3


def test_one_process_gathers_nothing():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows


def test_the_masked_mean_counts_known_rows_only():
    values = torch.tensor([1.0, 5.0, float("nan")])
    assert global_masked_mean(values, torch.tensor([True, True, False])).item() == 3
    assert global_masked_mean(values, torch.tensor([True, False, False])).item() == 1
    assert global_masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "1")
