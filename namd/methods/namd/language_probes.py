"""What a linear model can read from the states of reports; training is not done here."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import PreTrainedTokenizerBase

from namd.config.seeding import generator
from namd.data.records import RandomRecords, Record, family_history
from namd.data.report import report_text
from namd.data.schema import CODES
from namd.models.language_settings import SoftPromptSettings
from namd.models.soft_prompt import SoftPromptContext

CATEGORIES = ("SCT_PRE_ATT", "SCT_EPI_LOC", "SCT_MARGINS", "gender", "diagemph", "family_history")
NUMBERS = ("age", "SCT_LONG_DIA")
NOT_TOLD = -1
BATCH = 250

COHORT_RECORDS = RandomRecords(
    age_years=(55, 76), diameter_mm=(4, 30), missing=0.1, perpendicular=0
)
"""Ages and sizes as narrow as a screening cohort's: a harder R2 than the training range's."""


def probe_states(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    num_records: int,
    seed: int,
    num_vectors: int = 0,
) -> dict[str, float]:
    """Return what linear probes read from EOS on records that nothing was fitted on.

    Per category the balanced accuracy, with `not told` as one more class; per number the R2
    where it is told. Half of the records fit the probes, half are held out.

    Args:
        model: Text model without head.
        tokenizer: Its tokenizer.
        num_records: Records to fit on, and as many to measure on.
        seed: Of records and prompts.
        num_vectors: Fresh soft-prompt vectors before the text.
    """
    rng = generator("language-probes", seed)
    records = [COHORT_RECORDS.draw(rng) for _ in range(2 * num_records)]
    prompts = SoftPromptSettings(num_sets=1, num_vectors=num_vectors)
    context = SoftPromptContext(model, tokenizer, prompts, seed=seed)
    states = read_states(context, [report_text(record) for record in records])
    fitted = np.arange(len(records)) < num_records
    found = {}
    for name in CATEGORIES:
        codes = np.array([told_code(record, name) for record in records])
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
        probe.fit(states[fitted], codes[fitted])
        told = probe.predict(states[~fitted])
        found[name] = float(balanced_accuracy_score(codes[~fitted], told))
    for name in NUMBERS:
        values = np.array([record.get(name, np.nan) for record in records])
        known = ~np.isnan(values)
        fit, held = fitted & known, ~fitted & known
        probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
        probe.fit(states[fit], values[fit])
        found[name] = float(r2_score(values[held], probe.predict(states[held])))
    return found


def read_states(context: SoftPromptContext, reports: list[str]) -> Float[np.ndarray, "N D"]:
    """Return the first set's state of each report."""
    with torch.no_grad():
        parts = [context(reports[i : i + BATCH])[:, 0] for i in range(0, len(reports), BATCH)]
    return torch.cat(parts).float().cpu().numpy()


def told_code(record: Mapping[str, float] | Record, name: str) -> int:
    """Return the code that the report tells, or NOT_TOLD where it tells none.

    `Other` has no words in the report, and five relatives share one clause.
    """
    if name == "family_history":
        history = family_history(record)
        return NOT_TOLD if history is None else history
    code = record.get(name)
    if code is None or CODES[name][int(code)] == "other":
        return NOT_TOLD
    return int(code)
