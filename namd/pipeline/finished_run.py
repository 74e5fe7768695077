"""A run of the store that may draw: found and judged without torch, so that refusals are quick."""

from collections.abc import Mapping
from dataclasses import dataclass

from namd.config.errors import InputError
from namd.methods.base import Stage
from namd.methods.shared.stages import JUDGE
from namd.pipeline.run import readable_runs
from namd.pipeline.run_configuration import RunConfiguration, from_mapping
from namd.pipeline.store import Artifact, Store


@dataclass(frozen=True)
class FinishedRun:
    """A run whose artifacts can draw.

    Attributes:
        key: Its key.
        configuration: How it was made.
        keys: Stage keys by label.
        spacing_mm: Of the crops it was trained on; None if its record does not say.
        simulated: Whether the follow-ups and labels it learned from were drawn by a program.
    """

    key: str
    configuration: RunConfiguration
    keys: Mapping[str, str]
    spacing_mm: float | None
    simulated: bool = False

    @property
    def image_size(self) -> int:
        """Pixels per side of the images that its model sees."""
        return int(self.configuration.config.image.size)


def finished_run(store: Store, key: str) -> FinishedRun:
    """Return the recorded run of a key, or of the start of one.

    Raises InputError if no run, or more than one, is meant.
    """
    every, damaged = readable_runs(store)
    for name, line in damaged.items():
        if key and name.startswith(key):
            raise InputError(f"--run {key}: {line}")
    runs = {name: run for name, run in every.items() if name.startswith(key)}
    if len(runs) != 1 or not key:
        found = f"{len(runs)} runs" if runs else "no finished run"
        known = ", ".join(name[:12] for name in runs or every) or "none"
        raise InputError(f"--run {key}: {found} of this key in the store; there: {known}")
    ((name, recorded),) = runs.items()
    mapping = {**recorded["config"], "method": recorded["method"]}
    spacing = (recorded.get("crops") or {}).get("spacing_mm")
    return FinishedRun(
        name,
        from_mapping(mapping, recorded.get("preset")),
        {stage["label"]: stage["key"] for stage in recorded["stages"]},
        None if spacing is None else float(spacing),
        bool((recorded.get("about") or {}).get("simulated")),
    )


def require_drawable(store: Store, run: FinishedRun) -> None:
    """Check that a run can draw and judge. Raises InputError for what its method or store lacks."""
    for label in (*draw_stage(run).upstream, JUDGE):
        find_artifact(store, run, label)


def draw_stage(run: FinishedRun) -> Stage:
    """Return the stage that draws. Raises InputError if the method has none."""
    for stage in run.configuration.stages():
        if stage.role == "draw":
            return stage
    raise InputError(f"--run {run.key[:12]}: its method has no model that draws")


def find_artifact(store: Store, run: FinishedRun, label: str) -> Artifact:
    """Return an artifact of the run by its label. Raises InputError if it is gone."""
    key = run.keys.get(label)
    artifact = None if key is None else store.find(label, key)
    if artifact is None:
        raise InputError(
            f"--run {run.key[:12]}: its {label} is no longer in the store; run it again"
        )
    return artifact
