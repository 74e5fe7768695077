"""Whether a cohort holds the cases that a study was measured on, wherever they lie now."""

from dataclasses import dataclass
from pathlib import Path

from namd.config.errors import InputError
from namd.data.cohort import CARD_FILE, read_card
from namd.ledger.view import StudyView


@dataclass(frozen=True)
class CohortComparison:
    """A cohort beside the one that a study was begun on.

    Attributes:
        contents: Fingerprint on the cohort's card; None: it has no card.
        before: That of the study's cohort; None: its ledger does not name it.
        place: Where that one was.
    """

    contents: str | None
    before: str | None
    place: str

    @property
    def same(self) -> bool:
        """Whether the cases are the same, as far as the ledger knows its own."""
        return self.before is None or self.contents == self.before


def compare_cohort(view: StudyView, cohort: Path) -> CohortComparison:
    """Compare the cases of a cohort with those of a study. A moved cohort is the same one."""
    card = read_card(cohort) if (cohort / CARD_FILE).exists() else {}
    before = view.about.get("cohort_fingerprint")
    return CohortComparison(card.get("fingerprint"), before, str(view.about.get("cohort")))


def require_same_cohort(view: StudyView, cohort: Path) -> str | None:
    """Return the fingerprint on a cohort's card; None: it has no card.

    Trials are not known by their cases, so others would stand beside those that are over as if
    they had been measured alike.

    Raises:
        InputError: The study has trials of other cases.
    """
    found = compare_cohort(view, cohort)
    if not found.same:
        raise InputError(
            f"cohort {cohort}: holds other cases ({str(found.contents)[:12]}) than the study "
            f"{view.study} was begun on ({str(found.before)[:12]}, then in {found.place}); name "
            "that cohort, or give the study file another name"
        )
    return found.contents
