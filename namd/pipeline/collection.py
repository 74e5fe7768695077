"""Removing from a store what no published artifact needs, while others build in it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from namd.pipeline.store import Entry, Store
from namd.storage.artifacts import ATTEMPTS, CHECKPOINTS, Damaged, key_folder

Wanted = Callable[[], set[tuple[str, str]]]
"""Returns (stage, key) of the artifacts to keep."""


@dataclass
class Freed:
    """What a collection removed, as paths in the store, and what it left because it is held."""

    removed: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


class _Needed:
    """What is to be kept, asked for again once the answer is older than the asking took."""

    def __init__(self, ask: Wanted) -> None:
        self._ask = ask
        self._renew()

    def __contains__(self, place: tuple[str, str]) -> bool:
        if place not in self._places and time.monotonic() - self._asked > self._took:
            self._renew()
        return place in self._places

    def _renew(self) -> None:
        start = time.monotonic()
        self._places = self._ask()
        self._asked = time.monotonic()
        self._took = self._asked - start


def collect(store: Store, wanted: Wanted | None = None, dry: bool = False) -> Freed:
    """Remove what no published artifact needs: dead attempts, old leases and checkpoints.

    Checkpoints of unfinished keys stay, since the same command would continue from them. So
    does whatever was begun or published after this was called.

    Args:
        store: From which to remove.
        wanted: Returns (stage, key) of the artifacts to keep, and is asked again while this
            waits and removes; None keeps all published ones.
        dry: Only say what would be removed.
    """
    freed = Freed()
    first = list(store.entries())
    known = {(entry.stage, entry.key): entry.committed for entry in first}
    entries = _after_silence(store, first)
    needed = None if wanted is None else _Needed(wanted)
    for entry in entries:
        # A hold is written before its trial looks for the artifact, but maybe only just.
        if entry.held or known.get((entry.stage, entry.key)) is entry.committed:
            _collect_entry(store, entry, needed, dry, freed)
    if not dry:
        store.backend.remove(".probe")
    return freed


def _collect_entry(
    store: Store, entry: Entry, needed: _Needed | None, dry: bool, freed: Freed
) -> None:
    folder = key_folder(entry.stage, entry.key)
    places = [folder]
    if not entry.held and (needed is None or (entry.stage, entry.key) in needed):
        places = _leftovers(store, entry)
    now = store.look(entry.stage, entry.key) if places else entry
    if now.held:
        freed.held.append(folder)
    elif now.committed == entry.committed:
        for place in places:
            freed.removed.append(place)
            if not dry:
                _remove(store, entry, place, folder)


def _remove(store: Store, entry: Entry, place: str, folder: str) -> None:
    if place == folder:
        store.remove(entry.stage, entry.key)
    else:
        store.backend.remove(place)


def _leftovers(store: Store, entry: Entry) -> list[str]:
    folder = key_folder(entry.stage, entry.key)
    try:
        commit = store.commit(entry.stage, entry.key)
    except Damaged:
        return []  # Which attempt was published is not known: none of them is a leftover.
    winner = None if commit is None else commit.attempt
    attempts = [n for n in store.backend.names(f"{folder}/{ATTEMPTS}") if n != winner]
    places = [f"{folder}/{ATTEMPTS}/{name}" for name in attempts]
    for name in store.backend.names(folder):
        stale = name.startswith(("lease-", "heartbeat-"))
        if stale or (entry.committed and name == CHECKPOINTS):
            places.append(f"{folder}/{name}")
    return places


def _after_silence(store: Store, entries: list[Entry]) -> list[Entry]:
    """Look again after one time-to-live if a holder's life can only be judged by waiting."""
    if not any(entry.held for entry in entries):
        return entries
    deadline = time.monotonic() + store.leases.timing.ttl_s
    while any(entry.held for entry in entries) and time.monotonic() <= deadline:
        time.sleep(min(1.0, store.leases.timing.heartbeat_s))
        entries = list(store.entries())
    return entries
