"""A cohort by name: a folder, or the phantom of a recipe, which a store keeps once it is built.

How cases are rendered is decided in `namd.data.sources.phantom`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.config.errors import InputError, shown
from namd.config.places import local_path

if TYPE_CHECKING:
    from namd.data.building import Stages
    from namd.data.settings import CohortDemands

WORD = "phantom"
SEED = 23
COHORTS = "cohorts"

_NAMED = re.compile(rf"{WORD}(?::([1-9][0-9]{{0,5}}))?")


@dataclass(frozen=True)
class Phantom:
    """A phantom cohort, decided by its recipe alone: one recipe, one folder in a store.

    Attributes:
        cases: The most cases it has; None: all that the recipe gives.
    """

    cases: int | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides its cases, as plain values."""
        from namd.config.parsing import to_mapping
        from namd.data.simulation.settings import SimulationSettings
        from namd.data.sources.phantom import PhantomSettings

        recipe: dict[str, Any] = {
            "phantom": to_mapping(PhantomSettings()),
            "simulation": to_mapping(SimulationSettings.for_law("marked", rendered=True)),
            "seed": SEED,
        }
        return recipe if self.cases is None else recipe | {"cases": self.cases}

    def folder(self, store: Path) -> Path:
        """Return where a store keeps it, built or not."""
        from namd.config.fingerprint import fingerprint

        return store / COHORTS / f"{WORD}-{fingerprint(self.recipe)[:12]}"

    def require(self, demands: "CohortDemands | None") -> None:
        """Refuse what its crops are too small for, before it is built. Raises InputError."""
        size = int(self.recipe["phantom"]["size_px"])
        if demands is not None and demands.image_size > size:
            raise InputError(
                f"cohort {WORD}: its crops of {size} pixels are smaller than image.size "
                f"{demands.image_size}; set image.size and judge.architecture.image_size to "
                "less, or build a cohort with larger crops"
            )
        if demands is not None and demands.stored_size > size:
            raise InputError(
                f"cohort {WORD}: its crops of {size} pixels have no room to turn images of "
                f"{demands.image_size} by 45 degrees, which image.rotations asks for; set "
                "image.rotations to quarter, or build a cohort with crops of "
                f"{demands.stored_size} pixels or more (--size)"
            )

    def build(self, folder: Path, stages: "Stages | None" = None) -> None:
        """Build it there. Raises InputError if it cannot be built or written."""
        from namd.data.building import build_phantom, finish, simulation_settings

        law = simulation_settings(rendered=True)
        cohort = build_phantom(SEED, law, self.cases, stages=stages)
        finish(cohort, SEED)
        try:
            cohort.write(folder)
        except InputError:
            # Another process may have finished it first: that one serves as well.
            if not folder.exists():
                raise


def phantom_named(word: str) -> Phantom | None:
    """Return the phantom of `phantom` or `phantom:CASES`; None: the word is a folder's.

    Raises InputError for `phantom:` with anything other than a number of cases.
    """
    if local_path(word).exists():
        return None
    match = _NAMED.fullmatch(word)
    if match is not None:
        return Phantom(int(match[1]) if match[1] else None)
    if word.startswith(f"{WORD}:"):
        raise InputError(
            f"cohort {shown(word)}: write {WORD}, or {WORD}:CASES with the most cases it may have"
        )
    return None


def find_cohort(
    word: str,
    store: Path,
    demands: "CohortDemands | None" = None,
    build: bool = True,
    *,
    say: Callable[[str], None] | None = None,
    stages: "Stages | None" = None,
) -> Path:
    """Return a cohort's folder; a phantom is built once per store and recipe.

    Args:
        word: A folder, `phantom`, or `phantom:CASES`.
        store: The folder beside whose artifacts a phantom lies.
        demands: What the configuration asks of it.
        build: Whether a phantom that is not there is built; if not, the folder is where it will
            lie and does not exist.
        say: Called with a line before a phantom is built.
        stages: Receives the progress of building.

    Raises:
        InputError: There is no cohort, or one that must not be trained on, or not so.
    """
    phantom = phantom_named(word)
    folder = local_path(word) if phantom is None else phantom.folder(store)
    if phantom is not None and not folder.exists():
        phantom.require(demands)
        if not build:
            return folder
        if say is not None:
            say(f"building the phantom cohort in {folder}")
        phantom.build(folder, stages)
    from namd.data.checks import require_trainable

    require_trainable(folder, demands)
    return folder


def stand_in(folder: Path) -> Callable[[object], str]:
    """Return what stands for the contents of a phantom that is not built, in a plan's keys.

    No artifact has such a key: a key holds the digest of cases, which only a built cohort has.
    """
    return lambda _part: f"not built: {folder.name}"


def not_built(folder: Path) -> str:
    """Return the words of a plan on a phantom that is not built, with the way to another one."""
    words = (
        f"cohort {WORD} is not built yet, so nothing made from it can be in the store; the run "
        "builds it first"
    )
    others = sorted(str(path) for path in folder.parent.glob(f"{WORD}-*") if path.is_dir())
    if others:
        words += f"; of another recipe, for --cohort: {', '.join(others[:3])}"
    return words
