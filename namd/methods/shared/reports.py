"""The record of each case as a sentence (NAMD Fig 4)."""

import pandas as pd

from namd.data.cohort import Cohort
from namd.data.missing import filled_as_released
from namd.data.report import report_text
from namd.data.schema import EHR_FEATURES
from namd.methods.shared.diffusion_settings import ReportSettings


def reports_of(cohort: Cohort, settings: ReportSettings) -> list[str]:
    """Return the report of every case."""
    return report_texts(cohort.table[list(EHR_FEATURES)], settings)


def report_texts(table: pd.DataFrame, settings: ReportSettings) -> list[str]:
    """Return the report of every record, one a row, with NaN for what is missing."""
    filled = filled_as_released(table) if settings.missing == "filled" else table
    records = filled.to_dict("records")
    return [report_text(record, settings.include, settings.perpendicular) for record in records]
