"""A study's report, read from its store and written to a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from namd.config.whole_files import filled_whole
from namd.ledger.view import StudyView, read_view
from namd.storage.base import Storage
from namd.storage.opening import open_storage
from namd.study.opening import readable

if TYPE_CHECKING:
    from analysis.study_report import Report


def read_report(
    storage: Storage, view: StudyView, cohort: Path | None = None, warnings: Sequence[str] = ()
) -> "Report":
    """Return all that the report of a study says.

    Args:
        storage: The store as the ledger reads it.
        view: What the ledger says.
        cohort: Where the cases lie; None: where the ledger, the study file or the store have them.
        warnings: Lines that a reader must see first.
    """
    from analysis.study_report import make_report
    from namd.methods.registry import METHODS
    from namd.study.importance import ledger_importance

    importance, lost = ledger_importance(storage, view)
    titles = {method.name: method.title for method in METHODS.values()}
    return make_report(storage, view, cohort, importance, (*warnings, *lost), titles)


def write_study_report(
    store: str,
    name: str,
    folder: Path,
    cohort: Path | None = None,
    pictures: Mapping[str, Path] | None = None,
    warnings: tuple[str, ...] = (),
) -> "tuple[Path, Report]":
    """Write a study's report under a folder; return the HTML's path and what it says.

    Raises InputError if store or folder cannot be used.
    """
    with readable(store):
        storage = open_storage(store)
        report = read_report(storage, read_view(storage, name), cohort, warnings)
    return write_pages(report, folder, pictures), report


def write_pages(report: "Report", folder: Path, pictures: Mapping[str, Path] | None = None) -> Path:
    """Write HTML, Markdown, CSV and figures, all or none; return the HTML's path.

    Raises InputError if the folder cannot be written.
    """
    from analysis.study_report import write_report

    with filled_whole(folder) as partial:
        page = write_report(report, partial, pictures)
    return folder / page.name
