"""Which studies need what a store holds, as their ledgers say. Listing it is `namd.cli.store`'s."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from namd.cli.output import echo
from namd.config.errors import InputError

if TYPE_CHECKING:
    from namd.ledger.schema import Event
    from namd.pipeline.store import Store

SHOWN = 3
"""Arms that a listing for people names; `--json` has all of them."""

Owners = dict[str, dict[str, None]]
"""Study to its arms or proposals, each once and in order."""


@dataclass
class StoreOwners:
    """Arms and proposals of the studies of a store, by what they need.

    Attributes:
        by_key: Per artifact's key, the studies with the arms that need it.
        trials: Per study and trial, its arm or proposal and the keys of its stages.
    """

    by_key: dict[str, Owners] = field(default_factory=dict)
    trials: dict[tuple[str, str], tuple[str, set[str]]] = field(default_factory=dict)

    def apply(self, study: str, event: "Event") -> None:
        """Take in one record."""
        from namd.ledger.schema import Queued, StageDone

        trial, content = event.identity.trial, event.content
        if trial is None:
            return
        if isinstance(content, Queued):
            self.trials[study, trial] = (content.label, set())
        elif isinstance(content, StageDone) and (study, trial) in self.trials:
            label, keys = self.trials[study, trial]
            keys.add(content.key)
            self.by_key.setdefault(content.key, {}).setdefault(study, {})[label] = None

    def of_artifact(self, key: str) -> Owners:
        """Return the studies that need an artifact."""
        return self.by_key.get(key, {})

    def of_run(self, record: Mapping[str, Any]) -> Owners:
        """Return the studies of which a trial has all the stages of a recorded run."""
        keys = {str(stage.get("key")) for stage in record.get("stages") or ()}
        found: Owners = {}
        for (study, _), (label, own) in self.trials.items():
            if keys and keys <= own:
                found.setdefault(study, {})[label] = None
        return found


def store_owners(store: "Store") -> StoreOwners:
    """Read the ledgers of a store; one that cannot be read is named on stderr and left out."""
    from namd.cli.study_inputs import open_studies, readable
    from namd.ledger.reading import read_events

    owners, url = StoreOwners(), store.backend.name
    try:
        storage, names = open_studies(url)
    except InputError as error:
        echo(f"warning: {error}")
        return owners
    for name in names:
        try:
            with readable(url):
                for event in read_events(storage, name):
                    owners.apply(name, event)
        except InputError as error:
            echo(f"warning: {error}")
    return owners


def as_value(owners: Owners) -> list[dict[str, Any]]:
    """Return owners for `--json`."""
    return [{"study": study, "arms": list(arms)} for study, arms in owners.items()]


def as_cell(owners: Owners) -> str:
    """Return owners for a table: `demo: full, no_align`."""
    return "; ".join(f"{study}: {_few(arms)}" for study, arms in owners.items()) or "-"


def _few(arms: Iterable[str]) -> str:
    named = list(arms)
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return ", ".join(named[:SHOWN]) + more
