"""A thin searcher for Tune: the next trial comes from the ledger."""

from typing import Any

from ray.tune.search import Searcher

from namd.distributed.study_controller import StudyController


class LedgerSearcher(Searcher):
    """Gives Tune the next trial of a study. It has no state and is never restored."""

    def __init__(self, controller: StudyController) -> None:
        super().__init__()
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        """Tuner pickles its arguments for a restoration that never happens."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the attempt's name, None to wait, or FINISHED."""
        name = self._controller.suggest(trial_id)
        if name is not None:
            return {"run": name}
        return Searcher.FINISHED if self._controller.is_over else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler has recorded the end already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune's own files are discarded."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: Tune's own files are discarded."""
