"""NAMD's trained latent diffusion model, bound to cases and ready to draw."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from namd.data.cohort import Cohort
from namd.data.schema import EHR_FEATURES
from namd.methods.base import StageContext
from namd.methods.namd.pretrain import language_folder
from namd.methods.shared.latent_draws import BATCH, LatentDrawer
from namd.methods.shared.reports import report_texts, reports_of
from namd.models.language import load_context


class LatentDiffusionDrawer(LatentDrawer):
    """Reads each case's report through the language model and the trained prompts."""

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        settings = context.settings.finetune
        self.reported = settings.report
        super().__init__(
            context,
            cohort,
            "finetune",
            samples_baseline=settings.baseline_latent == "sample",
        )

    def report(self, values: Mapping[str, Any]) -> str:
        """Return the report that is read of a record's values."""
        table = pd.DataFrame([dict(values)], columns=list(EHR_FEATURES))
        return report_texts(table, self.reported)[0]

    def read_records(self, context: StageContext, cohort: Cohort) -> Tensor:
        """Return what the language model reads of each report."""
        settings = context.settings.finetune
        reports = reports_of(cohort, settings.report)
        reports = [reports[case] for case in self.record_order(len(reports))]
        reader = load_context(
            context.settings.language,
            settings.soft_prompt,
            settings.lora,
            settings.readout,
            language_folder(context),
            context.inputs["finetune"] / "adapter.safetensors",
        ).to(self.device)
        parts = [
            reader(reports[i : i + BATCH]).float().cpu() for i in range(0, len(reports), BATCH)
        ]
        return torch.cat(parts)
