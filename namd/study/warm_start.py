"""What a new search takes over from earlier studies, and whether those measured the same.

Which of their points lie in its space is decided in namd.study.record.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from namd.config.errors import InputError
from namd.config.flattening import flat
from namd.study.opening import Ledger, read_whole

if TYPE_CHECKING:
    from pathlib import Path

    from namd.ledger.view import StudyView
    from namd.pipeline.run_configuration import RunConfiguration
    from namd.study.engine import WarmTrial
    from namd.study.same_cohort import CohortComparison
    from namd.study.spec import SearchSpec, StudySpec

NAMED = 3
"""Differences that a line names before it counts the rest."""

_ABSENT = object()


def find_earlier(
    ledger: Ledger, spec: "StudySpec", names: Sequence[str], earlier: Sequence[str]
) -> "list[StudyView]":
    """Return the studies that a new search is to start from. Raises InputError."""
    from namd.config.parsing import nearest

    found = []
    for name in earlier:
        if spec.search is None:
            raise InputError(f"--warm-from {name}: study {spec.name} is no search")
        if name not in names:
            raise InputError(f"--warm-from {name}: not in {ledger.url}{nearest(name, names)}")
        if spec.name in names:
            raise InputError(
                f"--warm-from {name}: study {spec.name} was begun before; only a new one can "
                "start from others"
            )
        found.append(read_whole(Ledger(ledger.url, name, ledger.storage)))
    return found


def take_over(
    earlier: "Sequence[StudyView]",
    spec: "StudySpec",
    base: "RunConfiguration",
    cohort: "Path",
    say: Callable[[str], None],
) -> "list[tuple[str, WarmTrial]]":
    """Return the trials of earlier studies that a search knows from the start.

    Args:
        earlier: Those studies.
        spec: The search.
        base: What its trials start from.
        cohort: The cohort's folder.
        say: Called with how many trials each study gives, and with a warning of a study whose
            base differs in more than the search sets itself.

    Raises:
        InputError: A study was measured on other cases.
    """
    from namd.study.record import warm_trials
    from namd.study.same_cohort import compare_cohort

    found: list[tuple[str, WarmTrial]] = []
    if spec.search is None:
        return found
    for view in earlier:
        compared = compare_cohort(view, cohort)
        if not compared.same:
            raise InputError(_other_cases(view, cohort, compared))
        taken, left = warm_trials(spec.search, view)
        say(f"{len(taken)} trials of {view.study} are known from the start, {left} do not fit")
        different = _differences(view, spec.search, base) if taken else []
        if different:
            rest = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
            say(
                f"{view.study} was measured with {', '.join(different[:NAMED])}{rest}: its values "
                "may mislead this search"
            )
        found += taken
    return found


def _other_cases(view: "StudyView", cohort: "Path", found: "CohortComparison") -> str:
    return (
        f"--warm-from {view.study}: it was measured on other cases ({str(found.before)[:12]}, in "
        f"{found.place}) than {cohort} holds ({str(found.contents)[:12]}); name that cohort with "
        "--cohort, or leave this study out"
    )


def _differences(view: "StudyView", search: "SearchSpec", base: "RunConfiguration") -> list[str]:
    """Return in words where two bases differ, save where the search or a trial sets the value."""
    from namd.config.parsing import identity_mapping, to_mapping
    from namd.study.trials import TRAIN_SEED

    decided = {parameter.name for parameter in search.parsed_space.parameters} | {TRAIN_SEED}
    before = _leaves(view.configuration)
    now = _leaves(to_mapping(base.config))
    # A value that an earlier version did not record had what is its default now.
    unchanged = now.keys() - _leaves(identity_mapping(base.config)).keys() - before.keys()
    return [
        f"{path}={_word(before, path)} (here {_word(now, path)})"
        for path in sorted((before.keys() | now.keys()) - decided - unchanged)
        if before.get(path, _ABSENT) != now.get(path, _ABSENT)
    ]


def _leaves(mapping: Mapping[str, Any]) -> dict[str, Any]:
    # The ledger is JSON: it has lists, and no tuples.
    leaves = flat(mapping, empty=True).items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in leaves}


def _word(leaves: Mapping[str, Any], path: str) -> str:
    return str(leaves[path]) if path in leaves else "nothing"
