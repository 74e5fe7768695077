"""The pooled actors of a drawing pipeline, which process blocks of (case, k) pairs.

A worker opens its model on the first block that needs it, and knows the cases under evaluation;
a block has ids on input and numbers on output. The result does not depend on the actor.
"""

import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from namd.config.account import complete_account
from namd.config.errors import InputError, StageError
from namd.config.threads import fixed_threads
from namd.distributed.pairs import pair_text
from namd.distributed.source_identity import SourceIdentity, own_source, require_same_source
from namd.methods.base import StageContext
from namd.methods.shared.stages import JUDGE
from namd.pipeline.graph import Node
from namd.pipeline.store import Store, open_store

MAX_TRIES = 3
"""Workers that a block may kill before the pipeline gives up on it."""

Batch = dict[str, npt.NDArray[Any]]


class Tries:
    """Counts the tries of each block, as an actor.

    Ray Data itself retries a block that kills its workers without limit.
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def begin(self, block: str) -> int:
        """Return the number of tries of this block, this one included."""
        self._begun[block] = self._begun.get(block, 0) + 1
        return self._begun[block]


@dataclass(frozen=True)
class Work:
    """A worker's arguments, small enough to be sent.

    Attributes:
        nodes: The members of one family under evaluation, by draw index.
        store_url: The store of their inputs.
        cohort: The cohort's folder.
        device: The device, as torch names it.
        tries: The `Tries` actor.
        source: The namd that workers must have.
    """

    nodes: Mapping[int, Node]
    store_url: str
    cohort: Path
    device: str
    tries: Any
    source: SourceIdentity = field(default_factory=own_source)

    @property
    def node(self) -> Node:
        """Any member: they differ only in their index and what depends on it."""
        return next(iter(self.nodes.values()))

    def begin(self, batch: Batch) -> None:
        """Raise StageError if a block killed too many workers, or this one has another namd."""
        complete_account()
        require_same_source(self.source)
        first = pair_text(str(batch["case_id"][0]), int(batch["k"][0]))
        name = f"{self.node.stage.name}: {len(batch['k'])} pairs from {first}"
        if ray.get(self.tries.begin.remote(name)) > MAX_TRIES:
            raise StageError(f"{name} killed {MAX_TRIES} workers")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Use the number of threads in the configuration, as the stage's body does."""
        import torch  # noqa: F401 - fixed_threads sets what is imported

        with fixed_threads(self.node.num_threads):
            yield

    def context(self, store: Store, inputs: Mapping[str, tuple[str, str]]) -> StageContext:
        """Return a context for the stage's own code."""
        from namd.train.world import current_world

        return StageContext(
            stage=self.node.stage,
            config=self.node.settings,
            cohort_path=self.cohort,
            artifacts={label: payload(store, *place) for label, place in inputs.items()},
            outputs={},
            checkpoints=self.cohort,
            world=current_world(self.device),
            warn=_unheard,
        )


class DrawWorker:
    """Draws pairs, or reads those whose draw is in the store already.

    Args:
        work: The draws family, with the indices to draw.
        stored: Stage and key of the draws that are only read, by index.
    """

    def __init__(self, work: Work, stored: Mapping[int, tuple[str, str]]) -> None:
        self.work, self.stored = work, stored
        self._images: dict[int, npt.NDArray[np.float16]] = {}

    def __call__(self, batch: Batch) -> Batch:
        """Return the pairs with `image` (float16, (B, H, W)) and the seconds each one cost."""
        self.work.begin(batch)
        with self.work.computing():
            return self._draw(batch)

    def _draw(self, batch: Batch) -> Batch:
        start = time.monotonic()
        places = np.array([self._places[case] for case in batch["case_id"]], np.intp)
        parts: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float16]]] = []
        for k in np.unique(batch["k"]):
            here = np.flatnonzero(batch["k"] == k)
            parts.append((here, self._drawn(places[here], int(k))))
        image = np.empty((len(places), *parts[0][1].shape[1:]), np.float16)
        for here, images in parts:
            image[here] = images
        return {**_pairs(batch), "image": image, "draw_seconds": _shared(start, len(places))}

    def _drawn(self, places: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.float16]:
        from namd.sample.draws import draw

        if k in self.stored:
            return self._read(k)[places]
        return draw(self._drawer, k, places)[:, 0].half().numpy()

    def _read(self, k: int) -> npt.NDArray[np.float16]:
        from safetensors.numpy import load_file

        if k not in self._images:
            # Blocks arrive index by index: keep one index.
            self._images = {
                k: load_file(payload(self._store, *self.stored[k]) / "images.safetensors")["images"]
            }
        return self._images[k]

    @cached_property
    def _store(self) -> Store:
        return open_store(self.work.store_url, create=False, answered=True)

    @cached_property
    def _cases(self) -> Any:  # noqa: ANN401 - naming a cohort here would import pandas early
        from namd.methods.shared.draws import evaluation_cases

        return evaluation_cases(self.work.context(self._store, {}))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {case: place for place, case in enumerate(self._cases.table["case_id"])}

    @cached_property
    def _drawer(self) -> Any:  # noqa: ANN401 - a Drawer; its module imports torch
        module, _, attribute = str(self.work.node.stage.constants["drawer"]).partition(":")
        context = self.work.context(self._store, self.work.node.inputs)
        return getattr(importlib.import_module(module), attribute)(context, self._cases)


class JudgeWorker:
    """Measures images one by one: the judge's probability, image metrics, features.

    Args:
        work: The scores family, with the indices to score.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self._real: dict[str, npt.NDArray[np.float32]] = {}
        self._known: npt.NDArray[np.bool_] | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Return the pairs with their images, all metrics, and the features for set metrics."""
        self.work.begin(batch)
        with self.work.computing():
            return self._measure(batch)

    def _measure(self, batch: Batch) -> Batch:
        start = time.monotonic()
        scorer = self._scorer
        places = np.array([self._places[case] for case in batch["case_id"]], np.intp)
        frame, features = scorer.measure(batch["image"].astype(np.float32), places)
        measured = {name: frame[name].to_numpy() for name in frame.columns[2:]}
        found = {"judge_features": features.judge.numpy()}
        if features.inception is not None:
            found["inception_features"] = features.inception.numpy()
        return {
            **_pairs(batch),
            "image": batch["image"],
            "draw_seconds": batch["draw_seconds"],
            **measured,
            **found,
            **self._real_features(places),
            "has_followup": scorer.has_followup[places],
            "score_seconds": _shared(start, len(places)),
        }

    def _real_features(self, places: npt.NDArray[np.intp]) -> Batch:
        """Return the features of the real follow-ups of some cases; zeros if there is none."""
        scorer = self._scorer
        if self._known is None:
            self._known = ~scorer.has_followup
        fresh = np.unique(places[~self._known[places]])
        if len(fresh) or not self._real:
            features = scorer.features(scorer.followup[fresh])
            for name, values in (
                ("real_judge_features", features.judge),
                ("real_inception_features", features.inception),
            ):
                if values is not None:
                    shape = (len(scorer.case_ids), values.shape[1])
                    self._real.setdefault(name, np.zeros(shape, np.float32))[fresh] = values
            self._known[fresh] = True
        return {name: values[places] for name, values in self._real.items()}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {case: place for place, case in enumerate(self._scorer.case_ids)}

    @cached_property
    def _scorer(self) -> Any:  # noqa: ANN401 - a Scorer; its module imports torch
        from namd.methods.shared.draws import evaluation_cases
        from namd.methods.shared.scores import make_scorer

        store = open_store(self.work.store_url, create=False, answered=True)
        inputs = {JUDGE: self.work.node.inputs[JUDGE]}
        context = self.work.context(store, inputs)
        return make_scorer(context, evaluation_cases(context))


def payload(store: Store, stage: str, key: str) -> Path:
    """Return the folder that a published artifact's body filled. Raises InputError without it."""
    artifact = store.find(stage, key)
    if artifact is None:
        raise InputError(f"{stage}/{key[:12]}: removed from the store during the run")
    return artifact.payload


def _pairs(batch: Batch) -> Batch:
    return {"case_id": batch["case_id"], "k": batch["k"]}


def _shared(start: float, count: int) -> npt.NDArray[np.float64]:
    """Return the seconds since `start`, divided equally among `count` pairs."""
    return np.full(count, (time.monotonic() - start) / count)


def _unheard(_line: str) -> None:
    """Discard warnings: the bodies of draws and scores have none."""
