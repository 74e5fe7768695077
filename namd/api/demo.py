"""The demo's study from its cohort to its pictures; who shows them, and where, is the caller's."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namd.ledger.view import StudyView
    from namd.study.reporting import StudyReporter
    from namd.study.spec import StudySpec


def run_demo(
    spec: "StudySpec",
    cohort: Path,
    store: str,
    reporting: "Callable[[], AbstractContextManager[StudyReporter]]",
    say: Callable[[str], None],
) -> "StudyView":
    """Return the study's view once nothing is left to do; Ray is started only if something is.

    Args:
        spec: The study.
        cohort: The cohort's folder.
        store: The store's folder.
        reporting: Opens what is shown of a study that runs.
        say: Called with a line for the user.

    Raises:
        InputError: This store's demo was begun with another study file.
    """
    from namd.ledger.reading import study_names
    from namd.ledger.view import read_view
    from namd.pipeline.interruption import interruptible
    from namd.storage.opening import open_storage
    from namd.study.spec import require_extension

    storage = open_storage(store)
    begun = spec.name in study_names(storage)
    if begun:
        view = read_view(storage, spec.name)
        # A driver that died before its first record has decided nothing.
        if view.specification:
            require_extension(view.specification, spec)
        if view.ended == "closed" and view.counts()["completed"] == len(view.trials):
            say("all of it is in the store: nothing is trained")
            return view
    say("starting Ray on this machine; what is left is said as stages are built")
    from namd.distributed.driver import run_study

    with interruptible(), reporting() as reporter:
        try:
            run_study(
                spec,
                cohort=cohort,
                store_url=store,
                address="local",
                resume=begun,
                retry_failed=begun,
                reporter=reporter,
            )
        except SystemExit:
            reporter.note("stopped; `namd demo` continues it")
            raise
    return read_view(storage, spec.name)


def draw_arms(
    spec: "StudySpec", view: "StudyView", cohort: Path, store: str, folder: Path
) -> dict[str, Path]:
    """Write one picture per arm, of the first seed that is completed; return them by caption."""
    from namd.api.draws_picture import draw_picture
    from namd.pipeline.store import open_store
    from namd.study.trials import Configurator

    artifacts = open_store(store)
    configurator = Configurator(spec)
    pictures: dict[str, Path] = {}
    drawn: set[str] = set()
    for trial in view.trials.values():
        if trial.state != "completed" or trial.arm in drawn:
            continue
        drawn.add(trial.arm)
        found = {
            done.stage.label: artifacts.find(done.stage.name, done.key) for done in trial.stages
        }
        path = folder / f"draws-{trial.arm}.png"
        configuration = configurator.configure(trial.overrides, trial.seed)
        present = {label: item for label, item in found.items() if item is not None}
        draw_picture(present, configuration, cohort, path)
        seed = f"training seed {trial.seed}"
        pictures[f"Arm {trial.arm}, {seed}: the same cases in every arm (simulated)"] = path
    return pictures
