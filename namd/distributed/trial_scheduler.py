"""A thin scheduler for Tune: the ledger's records decide which trials continue."""

from typing import Any

from ray.tune.callback import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from namd.distributed.study_controller import StudyController
from namd.distributed.trial import EVENTS


class LedgerScheduler(FIFOScheduler):
    """Records what trials report, and answers whether they continue."""

    def __init__(self, controller: StudyController) -> None:
        super().__init__()
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles its arguments for a restoration that never happens."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ANN401, ARG002 - Tune's interface
        """Return STOP once the trial is over or pruned."""
        continues = self._controller.result(trial.trial_id, result[EVENTS])
        return TrialScheduler.CONTINUE if continues else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401, ARG002
        """Record that a trial's process died."""
        self._controller.lost(trial.trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401, ARG002
        """Record that Tune ended a trial by itself."""
        self._controller.lost(trial.trial_id)


class PollCallback(Callback):
    """Calls the study controller at every step of Tune's loop."""

    def __init__(self, controller: StudyController) -> None:
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles its arguments for a restoration that never happens."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ANN401, ARG002 - Tune's interface
        """Forward events, check for requests."""
        self._controller.tick()


class StopTimeout(Stopper):
    """Ends Tune's loop if trials do not report a stop in time."""

    def __init__(self, controller: StudyController) -> None:
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles its arguments for a restoration that never happens."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Return False: no trial is ended here."""
        return False

    def stop_all(self) -> bool:
        """Return whether the wait has timed out."""
        return self._controller.stop_timed_out
