"""The source of all random numbers: generators hashed from (purpose, identifiers). No state."""

import hashlib

import numpy as np

Identifier = str | int


def derive_seed(purpose: str, *identifiers: Identifier) -> int:
    """Return a 128-bit seed that depends on the purpose and the identifiers alone.

    The parts are length-prefixed before hashing, so ("a", "bc") and ("ab", "c") differ.
    """
    digest = hashlib.sha256()
    for part in (purpose, *identifiers):
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest()[:16], "little")


def generator(purpose: str, *identifiers: Identifier) -> np.random.Generator:
    """Return a fresh counter-based generator for (purpose, identifiers).

    Philox takes its key as it is, which costs microseconds; a SeedSequence would hash again.
    """
    return np.random.Generator(np.random.Philox(key=derive_seed(purpose, *identifiers)))
