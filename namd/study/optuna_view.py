"""A search shown in an Optuna storage, for optuna-dashboard and Optuna's own importances.

The ledger stays the truth: nothing is ever read back from there.
"""

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from namd.config.errors import InputError
from namd.study.engine import directions, frozen_trial
from namd.study.state import StudyState

PROPOSAL = "namd_proposal"
TRIALS = "namd_trials"

MIN_FOR_IMPORTANCE = 8
"""Completed proposals below which shares would be noise."""


def publish_to_optuna(state: StudyState, storage: BaseStorage | str) -> int:
    """Add the proposals that are over and not there yet; return how many were added.

    Args:
        state: The search, folded from its ledger.
        storage: An Optuna storage, or the URL of one (`sqlite:///studies.db`). For a journal
            file: `JournalStorage(JournalFileBackend(path))`.

    Raises:
        InputError: The study is an ablation, which has no space to show.
    """
    search = state.spec.search
    if search is None:
        raise InputError(f"study {state.spec.name} is an ablation: Optuna shows searches only")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage,
        study_name=state.spec.name,
        directions=directions(search),
        load_if_exists=True,
    )
    there = {_number(trial.user_attrs) for trial in study.get_trials(deepcopy=False)}
    added = 0
    for number, outcome in sorted(state.engine.outcomes.items()):
        if number in there:
            continue
        proposal = state.engine.proposals[number]
        trial = frozen_trial(search.parsed_space, proposal, outcome, len(directions(search)) == 1)
        trial.set_user_attr(PROPOSAL, number)
        trial.set_user_attr(TRIALS, list(state.members(number)))
        trial.set_user_attr("ended", outcome.state)
        study.add_trial(trial)
        added += 1
    return added


def importances(state: StudyState) -> dict[str, dict[str, float]]:
    """Return each parameter's share by PED-ANOVA, per objective; {} for too few proposals.

    It asks what separates good proposals from the rest (Watanabe et al. 2023), and needs no model
    of the space. Parameters that a condition took from some proposals are left out: their share
    would be that of the condition.
    """
    search = state.spec.search
    if search is None:
        raise InputError(f"study {state.spec.name} is an ablation: it has no space")
    completed = [n for n, outcome in state.engine.outcomes.items() if outcome.state == "completed"]
    if len(completed) < MIN_FOR_IMPORTANCE:
        return {}
    storage = InMemoryStorage()
    publish_to_optuna(state, storage)
    study = optuna.load_study(study_name=state.spec.name, storage=storage)
    evaluator = PedAnovaImportanceEvaluator()
    found = {}
    for place, objective in enumerate(search.objectives):
        with warnings.catch_warnings():
            # It warns of every target that low values count, which `_target` sees to.
            warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
            shares = optuna.importance.get_param_importances(
                study,
                evaluator=evaluator,
                params=_everywhere(study),
                target=_target(place, -1.0 if objective.mode == "max" else 1.0),
            )
        found[objective.metric] = {name: float(share) for name, share in shares.items()}
    return found


def _target(place: int, sign: float) -> Callable[[FrozenTrial], float]:
    """An objective of which less is better: a target of one's own has no direction for Optuna."""
    return lambda trial: sign * float(trial.values[place])


def _everywhere(study: optuna.Study) -> list[str]:
    """The parameters that every completed trial has."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(set.intersection(*(set(trial.params) for trial in trials)))


def _number(attributes: dict[str, Any]) -> int | None:
    return attributes.get(PROPOSAL)
