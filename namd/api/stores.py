"""The store that a caller names, or `$NAMD_STORE`."""

import os
from pathlib import Path

from namd.config.errors import InputError
from namd.config.places import place
from namd.config.store_places import require_place
from namd.pipeline.store import Store, open_store, view_store

VARIABLE = "NAMD_STORE"


def store_place(store: str | Path | None) -> str:
    """Return the store's folder or URL. Raises InputError if none is named."""
    given = str(store) if store is not None else os.environ.get(VARIABLE)
    if not given:
        raise InputError(f"no store: name its folder or URL with store=, or in ${VARIABLE}")
    require_place(given)
    return place(given)


def named_store(store: str | Path | None, *, create: bool = False) -> Store:
    """Return a store to read and write. Raises InputError if it cannot be used."""
    return open_store(store_place(store), create=create)


def viewed_store(store: str | Path | None) -> Store:
    """Return a store to look into; nothing is written there. Raises InputError."""
    return view_store(store_place(store))
