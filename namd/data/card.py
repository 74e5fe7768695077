"""The data card: what a cohort is, what of it is real, and what is simulated."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from namd.config.flattening import flat
from namd.data.cohort import Cohort
from namd.data.schema import MALIGNANT, SPLITS
from namd.data.settings import SplitFractions
from namd.statistics.notices import RESEARCH_ONLY

UNKNOWN_CEILING = "not known, since labels of the source were kept"
LAW_MEANINGS = {
    "marked": "the calibrated default, made to tell methods apart: record terms three times "
    "Brock's, NLST's growth squared, malignant signs at full strength; the follow-up is the "
    "baseline's slice, warped",
    "sober": "for sceptics: Brock's terms as published, NLST's growth, one future for each nodule, "
    "malignant signs at half strength; the follow-up is a second slice in another breath",
    "nlst": "NLST's growth alone, without signs; Brock's terms weighed 0.8 and 2; the follow-up is "
    "the baseline's slice, warped",
    "doubling-time": "malignant nodules double in volume, benign ones are stable, without signs; "
    "Brock's terms weighed 0.8 and 2; the follow-up is the baseline's slice, warped",
}
"""What each law is, in the words of a card; its figures stand among the settings."""


def finish_card(cohort: Cohort, split_seed: int, fractions: SplitFractions) -> None:
    """Write into the card how it was split and what follows from the cases: counts, size.

    Seed and fractions of the hash are null and empty if the source has a split of its own.
    """
    hashed = not cohort.card.get("split_column")
    cohort.card = {
        "notice": RESEARCH_ONLY,
        "real": [],
        "rendered": [],
        **cohort.card,
        "split_seed": split_seed if hashed else None,
        "fractions": asdict(fractions) if hashed else {},
        "cases": len(cohort),
        "patients": int(cohort.table["patient_id"].nunique()),
        "lesions": int(cohort.table["lesion_id"].nunique()),
        "splits": split_counts(cohort),
        "size": cohort.size,
        "spacing_mm": cohort.spacing_mm,
    }
    values = cohort.card.get("values") or {}
    drawn = set(simulated_columns(cohort.card))
    drawn -= {name for name, counts in values.items() if counts["kept"]}
    cohort.card["real"] = [name for name in cohort.card["real"] if name not in drawn]


def split_counts(cohort: Cohort) -> dict[str, dict[str, int]]:
    """Return cases, patients, malignant, benign and followed cases of every split."""
    counts = {}
    for split in SPLITS:
        inside = (cohort.table["split"] == split).to_numpy()
        table = cohort.table[inside]
        followed = cohort.has_followup
        counts[split] = {
            "cases": int(inside.sum()),
            "patients": int(table["patient_id"].nunique()),
            "malignant": int((table["label"] == MALIGNANT).sum()),
            "unlabelled": int(table["label"].isna().sum()),
            "followups": int(followed[inside].sum()) if followed is not None else 0,
        }
    return counts


def simulated_columns(card: Mapping[str, Any]) -> list[str]:
    """Return the columns that were drawn, not measured."""
    return list((card.get("simulation") or {}).get("simulated", []))


def law_of(card: Mapping[str, Any]) -> str | None:
    """Return the law that a cohort was simulated under; None if it was not, or does not say."""
    law = ((card.get("simulation") or {}).get("settings") or {}).get("law")
    return None if law is None else str(law)


def ideal_auroc(card: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Return the ideal predictor's AUROC per split; None for a cohort that is not simulated."""
    return (card.get("simulation") or {}).get("ideal_auroc")


def card_text(card: Mapping[str, Any]) -> str:
    """Return a data card as Markdown."""
    lines = [f"# Cohort of source {card.get('source', 'not stated')}", "", RESEARCH_ONLY, ""]
    lines += _facts(card)
    lines += _counts(card.get("splits") or {})
    lines += _origin(card)
    simulation = card.get("simulation")
    if simulation:
        lines += _simulation(simulation)
    notes = [*card.get("notes", []), *card.get("remarks", [])]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def _facts(card: Mapping[str, Any]) -> list[str]:
    excluded = card.get("excluded") or {}
    facts = {
        "cases": f"{card.get('cases', 'not stated')} ({card.get('patients', '?')} patients, "
        f"{card.get('lesions', '?')} lesions)",
        "crops": f"{card.get('size', '?')} pixels a side of {card.get('spacing_mm', 0):g} mm",
        "split": _split(card),
        "left out": ", ".join(f"{number} {reason}" for reason, number in excluded.items()),
        "not used": "; ".join(unused_lines(card)),
        "fingerprint": str(card.get("fingerprint", "not written yet")),
        "citation": str(card.get("citation", "not stated")),
        "licence": str(card.get("licence", "not stated")),
    }
    return [*(f"- **{name}**: {text}" for name, text in facts.items() if text), ""]


def unused_lines(card: Mapping[str, Any]) -> list[str]:
    """Return what the source holds and the cohort does not use, one line a kind."""
    unused = card.get("unused") or {}
    lines = [
        f"{kind} {', '.join(unused[kind])}" for kind in ("columns", "arrays") if unused.get(kind)
    ]
    if unused.get("crops"):
        lines.append(f"{unused['crops']} crops that no line of the table names")
    return lines


def value_lines(card: Mapping[str, Any]) -> list[str]:
    """Return what was kept, simulated, replaced and left missing, one line each, as counts."""
    values = card.get("values") or {}
    lines = []
    for fate in ("kept", "simulated", "replaced", "missing"):
        numbers = {name: counts.get(fate, 0) for name, counts in values.items()}
        listed = ", ".join(f"{name} {number}" for name, number in numbers.items() if number)
        if listed:
            lines.append(f"{fate}: {listed}")
    return lines


def _split(card: Mapping[str, Any]) -> str:
    if card.get("split_column"):
        return f"the source's own, column {card['split_column']}"
    fractions = _pairs(card.get("fractions") or {}) or "fractions not stated"
    return f"by patient hash, seed {card.get('split_seed', 'not stated')}, {fractions}"


def _counts(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = ("cases", "patients", "malignant", "unlabelled", "followups")
    rows = [f"| split | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for split, counts in _in_order(splits).items():
        rows.append(f"| {split} | {' | '.join(str(counts.get(c, '')) for c in columns)} |")
    return [*rows, ""]


def _origin(card: Mapping[str, Any]) -> list[str]:
    drawn = simulated_columns(card)
    return [
        "## What is real and what is not",
        "",
        f"- **real**: {_listed(card.get('real'))}",
        f"- **rendered** (drawn by a program from real contours and ratings): "
        f"{_listed(card.get('rendered'))}",
        f"- **simulated**: {_listed(drawn)}",
        *(f"- values {line}" for line in (value_lines(card) if _is_mixed(card) else [])),
        "",
    ]


def _is_mixed(card: Mapping[str, Any]) -> bool:
    values = (card.get("values") or {}).values()
    return any(counts.get("kept") or counts.get("replaced") for counts in values)


def _simulation(simulation: Mapping[str, Any]) -> list[str]:
    subject = (
        "The follow-ups are" if "followup" in simulation.get("simulated", []) else "Values are"
    )
    law = law_of({"simulation": simulation})
    meaning = f": {LAW_MEANINGS[law]}" if law in LAW_MEANINGS else ""
    lines = [
        "## Simulation",
        "",
        *([f"Law **{law}**{meaning} (docs/simulation.md).", ""] if law else []),
        f"{subject} simulated, seed {simulation.get('seed', 'not stated')}; scores on "
        "them say nothing about patients.",
        "",
        "Ideal predictor (AUROC of the true probability, the best that baseline and record allow): "
        + (_pairs(_in_order(simulation.get("ideal_auroc") or {})) or UNKNOWN_CEILING),
        "",
        *(f"- `{name}`: {value}" for name, value in flat(simulation.get("settings") or {}).items()),
        "",
    ]
    if simulation.get("replaced_label"):
        lines += ["The source's own labels were replaced by simulated ones.", ""]
    return lines


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by split in the order of the splits; JSON keeps none."""
    return {split: values[split] for split in SPLITS if split in values}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {'-' if value is None else format(value, '.3g')}" for name, value in values.items()
    )


def _listed(names: object) -> str:
    return (
        ", ".join(str(name) for name in names) if isinstance(names, list) and names else "nothing"
    )
