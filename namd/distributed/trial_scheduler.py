"""Tune's scheduler, as thin as it can be: who goes on is decided from the ledger's records."""

from typing import Any

from ray.tune.callback import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from namd.distributed.study_controller import StudyController
from namd.distributed.trial import EVENTS


class LedgerScheduler(FIFOScheduler):
    """Writes down what trials report, and answers whether they go on."""

    def __init__(self, controller: StudyController) -> None:
        super().__init__()
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles what it is given, for a restoration that never happens."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ANN401, ARG002 - Tune's interface
        """Return STOP once the trial is over or pruned."""
        goes_on = self._controller.result(trial.trial_id, result[EVENTS])
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401, ARG002
        """Take in that a trial's process died."""
        self._controller.lost(trial.trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401, ARG002
        """Take in that Tune ended a trial by itself."""
        self._controller.lost(trial.trial_id)


class PollCallback(Callback):
    """Gives the study controller a turn at every step of Tune's loop."""

    def __init__(self, controller: StudyController) -> None:
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles what it is given, for a restoration that never happens."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ANN401, ARG002 - Tune's interface
        """Forward events, look for requests to stop."""
        self._controller.tick()


class StopTimeout(Stopper):
    """Ends Tune's loop where trials do not answer a stop in time."""

    def __init__(self, controller: StudyController) -> None:
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles what it is given, for a restoration that never happens."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """No trial is ended here."""
        return False

    def stop_all(self) -> bool:
        """Whether to wait no longer."""
        return self._controller.stop_timed_out
