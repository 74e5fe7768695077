"""How much each searched parameter matters, computed from a study's ledger."""

from namd.ledger.reading import read_events
from namd.ledger.view import StudyView
from namd.storage.base import Storage
from namd.study.spec import parse_study
from namd.study.state import ProposalLost, StudyState


def ledger_importance(
    storage: Storage, view: StudyView
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Return each objective's PED-ANOVA importances, and why there are none if something is lost.

    Empty for ablations and short searches.
    """
    if not view.specification.get("search"):
        return {}, ()
    from namd.study.optuna_view import importances

    state = StudyState(parse_study(view.specification))
    try:
        for event in read_events(storage, view.study):
            state.apply(event)
    except ProposalLost as error:
        return {}, (f"importances are left out: {error}",)
    return importances(state), ()
