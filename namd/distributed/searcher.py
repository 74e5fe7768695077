"""Tune's searcher, as thin as it can be: what to try next stands in the ledger."""

from typing import Any

from ray.tune.search import Searcher

from namd.distributed.study_controller import StudyController


class LedgerSearcher(Searcher):
    """Hands Tune the next trial of a study. Holds no state: nothing is ever restored from it."""

    def __init__(self, controller: StudyController) -> None:
        super().__init__()
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles what it is given, for a restoration that never happens."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a trial's word, None: wait, or that the study is over."""
        word = self._controller.suggest(trial_id)
        if word is not None:
            return {"run": word}
        return Searcher.FINISHED if self._controller.is_over else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler's answers have told the ledger already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune's own record is thrown away."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: Tune's own record is thrown away."""
