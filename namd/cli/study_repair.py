"""`namd study repair`: sets damaged files of a study's ledger aside and says what is lost."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from namd.cli.output import answer, echo
from namd.cli.study_inputs import open_ledger, readable

if TYPE_CHECKING:
    from namd.ledger.survey import Damage


def repair_command(arguments: argparse.Namespace) -> int:
    """Repair a ledger, or with `--dry-run` say what would be set aside.

    Raises InputError if there is no such study, or if a live process holds it.
    """
    from namd.ledger.repair import repair
    from namd.ledger.survey import survey

    ledger = open_ledger(arguments)
    with readable(ledger.url):
        damages, aside = survey(ledger.storage, ledger.name), None
        if damages and not arguments.dry_run:
            echo("waiting at most a minute to see that no driver runs the study")
            folder, damages = repair(ledger.storage, ledger.name)
            aside = f"{ledger.place}/{folder}"
    value = {
        "study": ledger.name,
        "dry_run": arguments.dry_run,
        "damaged": [
            {"file": damage.file, "problem": damage.problem, "lost": list(damage.lost)}
            for damage in damages
        ],
        "aside": aside,
        "resume": ledger.resume if aside is not None else None,
    }
    answer(arguments, value, _as_text(ledger.name, damages, aside, ledger.resume))
    return 0


def _as_text(study: str, damages: "Sequence[Damage]", aside: str | None, resume: str) -> str:
    if not damages:
        return f"{study}: nothing is damaged"
    lines = []
    for damage in damages:
        lines.append(f"{damage.file} {damage.problem}")
        lines += [f"    lost: {each}" for each in damage.lost or ("nothing",)]
    if aside is None:
        return "\n".join([*lines, "", f"{study}: nothing was changed (--dry-run)"])
    return "\n".join(
        [
            *lines,
            "",
            f"{study}: set aside in {aside}",
            f"`{resume}` runs again what the ledger no longer knows; stages in the store are not "
            "built again",
        ]
    )
