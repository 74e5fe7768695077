"""Three gloo ranks of which one is surplus; run as a program, given a folder to write into."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from namd.distributed import worker_group_rank


def work(rank: int, folder: Path) -> None:
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    inside = worker_group_rank._regrouped(2, "gloo")
    number = torch.tensor(1.0)
    if inside:
        dist.all_reduce(number)
    (folder / str(rank)).write_text(f"{inside} {number:g}")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    children = []
    for rank in range(3):
        child = os.fork()
        if not child:
            work(rank, place)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitpid(child, 0)[1] for child in children) != 0)
