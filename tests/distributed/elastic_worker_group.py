"""A worker group of one to two workers on a cluster that loses a node and gets another; run as a
program.

Takes the folder to work in. The stage waits at step 13 for the cluster to change: with two workers
until a node is gone, alone until Ray Train has made the worker group two again. Leaves a file that
says how it went, and how far the parameters lie from one worker's.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from namd.study.spec import StageResources
from tests.distributed.worker_group_bench import Bench
from tests.parity import worker_group_bodies as bodies

ELASTIC = StageResources(workers=2, minimum_workers=1)
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
WAIT_S = 900.0
RESULT = "result.json"


def wait_for(marker: Path) -> None:
    """Return when the stage has left this file."""
    limit = time.monotonic() + WAIT_S
    while not marker.exists():
        if time.monotonic() > limit:
            raise TimeoutError(marker.name)
        time.sleep(0.2)


def change(cluster: Cluster, lost: object, markers: Path) -> None:
    """Take a node away when two workers wait, and give one back when one does."""
    wait_for(markers / bodies.WAITING_AS.format(2))
    cluster.remove_node(lost, allow_graceful=False)
    wait_for(markers / bodies.WAITING_AS.format(1))
    cluster.add_node(**NODE)


def main(folder: Path) -> None:
    """Run it all."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    # While it is the only one: stage worker and worker group's process must not go with the node
    # that is lost.
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    lost = cluster.add_node(**NODE)
    try:
        bench = Bench(folder)
        node = bench.node("elastic_vae")
        markers = bench.store.checkpoints("vae", node.key)
        # Ray starts nodes in the main thread alone.
        with ThreadPoolExecutor(1) as beside:
            built = beside.submit(bench.build, "elastic_vae", ELASTIC)
            change(cluster, lost, markers)
            built.result()
        artifact = bench.artifact("elastic_vae")
        manifest = artifact.manifest()
        found = {
            "worker_group": manifest["notes"]["worker_group"],
            "lines": [line["index"] for line in artifact.metrics()],
            "wall_seconds": manifest["wall_seconds"],
            "device_seconds": manifest["device_seconds"],
            "furthest": bodies.furthest(bench.parameters("elastic_vae"), bench.alone()),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()
    (folder / RESULT).write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
