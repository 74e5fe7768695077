"""Showing a study in W&B: what the library's trackers need, found in a store."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.config.errors import InputError
from namd.config.places import local_path

if TYPE_CHECKING:
    from namd.pipeline.store import Artifact, Store
    from namd.storage.stage_names import StageName
    from namd.tracking.protocol import Tracker
    from namd.tracking.wandb_tracker import TrackedEvent

MAX_CASES = 8
"""Drawn crops shown of a study that asks for images."""

_ENLARGED = 4


def live_trackers(
    mode: str | None,
    store_url: str,
    study: str,
    warn: Callable[[str], None],
    out_dir: Path | None = None,
) -> "list[Tracker]":
    """Return what follows a running study: nothing that it does stops or delays the study.

    Args:
        mode: `offline`, `online`, `off`; None: as `$WANDB_MODE` says, else offline.
        store_url: The store's folder or URL.
        study: The study's name.
        warn: Called with at most one line.
        out_dir: Gets a folder `wandb`; None: see `tracking_folder`.

    Raises:
        InputError: Online without a key.
    """
    from namd.tracking.background import BackgroundTracker
    from namd.tracking.wandb_tracker import WandbTracker
    from namd.tracking.wandb_writer import WandbWriter, wandb_mode

    chosen = wandb_mode(mode)
    if chosen is None:
        return []
    found = _Stages(store_url)
    inner = WandbTracker(
        WandbWriter(out_dir or tracking_folder(store_url, study), chosen),
        earlier=lambda: ledger_records(store_url, study),
        steps_of_key=found.steps,
        images_of_key=found.images,
    )
    return [BackgroundTracker(inner, warn)]


def publish_study(
    store_url: str,
    study: str,
    mode: str | None = None,
    out_dir: Path | None = None,
) -> dict[str, Any]:
    """Write all of a study to W&B from its ledger; what was written before is replaced.

    Args:
        store_url: The store's folder or URL.
        study: The study's name.
        mode: As `live_trackers`.
        out_dir: As `live_trackers`.

    Returns:
        What `--json` prints: `study`, `records`, `mode`, `folder`.

    Raises:
        InputError: Online without a key, or tracking is switched off.
        TrackingError: W&B could not take it.
    """
    from analysis.study_table import study_table
    from namd.ledger.view import read_view
    from namd.storage.opening import open_storage
    from namd.tracking.publishing import publish
    from namd.tracking.wandb_tracker import WandbTracker
    from namd.tracking.wandb_writer import WandbWriter, wandb_mode

    chosen = wandb_mode(mode)
    if chosen is None:
        raise InputError("W&B is switched off (WANDB_MODE): say --online, or unset it")
    folder = out_dir or tracking_folder(store_url, study)
    storage = open_storage(store_url)
    table = study_table(storage, read_view(storage, study))
    found = _Stages(store_url)
    writer = WandbWriter(folder, chosen)
    tracker = WandbTracker(writer, images_of_key=found.images)
    records = ledger_records(store_url, study)
    count = publish(records, found.steps, table.rows, tracker, table.effects)
    return {
        "study": study,
        "records": count,
        "mode": writer.mode,
        "folder": str(folder.absolute() / "wandb"),
    }


def tracking_folder(store_url: str, study: str) -> Path:
    """Return where W&B's files go: `$WANDB_DIR`, else beside the ledger, else where we stand."""
    if os.environ.get("WANDB_DIR"):
        return Path(os.environ["WANDB_DIR"])
    path = store_url.removeprefix("file://")
    if "://" in path:
        return Path.cwd()
    return local_path(path) / "studies" / study


def ledger_records(store_url: str, study: str) -> "Iterator[TrackedEvent]":
    """Yield a study's records as trackers receive them. Raises OSError, LedgerDamaged."""
    from namd.ledger.reading import read_events
    from namd.storage.opening import open_storage

    for event in read_events(open_storage(store_url), study):
        identity = event.identity
        yield identity.trial, identity.attempt, identity.transition, event.body


class _Stages:
    """What published stages measured and drew; nothing if they are gone or out of reach.

    Raises StoreError for a damaged one.
    """

    def __init__(self, store_url: str) -> None:
        self._url = store_url
        self._store: Store | None = None

    def steps(self, stage: "StageName", key: str) -> Iterable[Mapping[str, Any]]:
        """Return a stage's measurements."""
        artifact = self._find(stage, key)
        return artifact.metrics() if artifact is not None else ()

    def images(self, stage: "StageName", key: str) -> list[tuple[str, bytes]]:
        """Return a few crops of a family of draws, of its first draw alone."""
        if stage.role != "draw" or stage.index not in (0, None):
            return []
        artifact = self._find(stage, key)
        return _pictures(artifact.payload) if artifact is not None else []

    def _find(self, stage: "StageName", key: str) -> "Artifact | None":
        from namd.pipeline.store import open_store
        from namd.storage.artifacts import Damaged
        from namd.storage.errors import StoreError

        try:
            if self._store is None:
                self._store = open_store(self._url, create=False)
            return self._store.find(stage.name, key)
        except Damaged:
            raise
        except StoreError:
            return None


def _pictures(payload: Path) -> list[tuple[str, bytes]]:
    """Return (caption, PNG) of the first cases by a hash of their ids, which stay here."""
    import io

    import numpy as np
    import pandas as pd
    from PIL import Image
    from safetensors.numpy import load_file

    from namd.config.seeding import derive_seed

    images = load_file(payload / "images.safetensors")["images"].astype(np.float32)
    ids = pd.read_parquet(payload / "cases.parquet")["case_id"].tolist()
    order = sorted(range(len(ids)), key=lambda row: derive_seed("picture", ids[row]))
    found = []
    for number, row in enumerate(order[:MAX_CASES], start=1):
        grey = np.clip((images[row] + 1.0) * 127.5, 0.0, 255.0).astype(np.uint8)
        picture = Image.fromarray(grey.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1))
        stream = io.BytesIO()
        picture.save(stream, format="PNG")
        found.append((f"draw 0, picture {number}", stream.getvalue()))
    return found
