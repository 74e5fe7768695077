"""The bodies of tests.parity.worker_group_bodies as stages of a real store."""

from collections.abc import Callable
from pathlib import Path

from namd.config.fingerprint import fingerprint
from namd.distributed.worker_group import build_with_worker_group
from namd.methods.base import Step
from namd.pipeline.graph import Node
from namd.pipeline.store import open_store
from namd.storage.stage_names import StageName
from namd.study.spec import StageResources
from namd.train.world import LocalWorld
from tests.contexts import open_stage
from tests.parity import worker_group_bodies as bodies


class Bench:
    """A store that holds a perceptual encoder, a cohort, and nodes to build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder / "store")
        self.store = open_store(self.url)
        self.cohort = bodies.make_cohort(folder / "cohort")
        attempt = self.store.open_attempt("perceptual", fingerprint("perceptual"))
        bodies.make_perceptual(attempt.payload)
        self.store.publish(attempt)
        self.relayed: list[tuple[StageName, str, Step]] = []

    def node(self, body: str) -> Node:
        settings, place = bodies.settings(), f"tests.parity.worker_group_bodies:{body}"
        inputs = {"perceptual": ("perceptual", fingerprint("perceptual"))}
        stage = open_stage("vae", place, settings, inputs, role="train")
        return Node(stage, fingerprint(body), {}, inputs, settings)

    def build(
        self,
        body: str,
        resources: StageResources,
        seeing: Callable[[Step], None] = lambda _step: None,
        **more,
    ) -> None:
        """Build the stage; `seeing` receives each step as the stage worker relays it."""
        self.relayed = []

        def relay(*record) -> None:
            self.relayed.append(record)
            seeing(record[2])

        build_with_worker_group(
            [self.node(body)],
            store_url=self.url,
            cohort=self.cohort,
            resources=resources,
            relay=relay,
            name="test",
            **more,
        )

    def artifact(self, body: str):
        return self.store.find("vae", self.node(body).key)

    def parameters(self, body: str):
        artifact = self.artifact(body)
        assert artifact is not None
        return bodies.trained(artifact.payload)

    def alone(self):
        """The parameters of one worker, without Ray."""
        out = self.folder / "alone"
        if not out.exists():
            perceptual = self.store.find("perceptual", fingerprint("perceptual")).payload
            context = bodies.context_for(self.cohort, perceptual, out, LocalWorld())
            list(bodies.sgd_vae(context))
        return bodies.trained(out / "payload")
