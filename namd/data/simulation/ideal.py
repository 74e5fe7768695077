"""The ideal sampler: what a generator that knew the simulation's law would draw.

It may know a case's baseline, mask, record and p, and never reads its label or follow-up.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from namd.config.errors import InputError
from namd.config.parsing import parse
from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.simulation.change import Nodule, draw, render
from namd.data.simulation.settings import SimulationSettings, settings_class
from namd.data.simulation.simulate import read_nodules


def redraw(
    cohort: Cohort, index: Iterable[int] | NDArray[np.integer], draw_seed: int, k: int
) -> NDArray[np.int16]:
    """Draw number k of the follow-ups of some cases, int16 (n, S, S) in HU.

    The label is redrawn from p, then growth and every nuisance; a case's draw depends on
    (draw_seed, case_id, k) alone, not on which others are asked for.

    Raises:
        InputError: The cohort is not simulated.
    """
    settings = settings_of(cohort)
    rows = np.asarray(list(index), dtype=np.intp)
    images = np.empty((len(rows), *cohort.baseline.shape[1:]), dtype=np.int16)
    cases, probability = cohort.table["case_id"].to_numpy(), cohort.table["sim_p"].to_numpy()
    for place, nodule in enumerate(read_nodules(cohort, rows)):
        row = rows[place]
        rng = generator("ideal-redraw", draw_seed, str(cases[row]), k)
        images[place] = redraw_one(settings, nodule, float(probability[row]), rng)
    return images


def redraw_one(
    settings: SimulationSettings, nodule: Nodule, probability: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """One follow-up of one nodule whose label is Bernoulli(p), int16 (S, S)."""
    label = int(rng.random() < probability)
    return render(settings, nodule, draw(settings, nodule, label, rng), rng)


def settings_of(cohort: Cohort) -> SimulationSettings:
    """The law a cohort was simulated under. Raises InputError if it was not."""
    simulation = cohort.card.get("simulation")
    if not simulation or "sim_p" not in cohort.table:
        raise InputError(
            "the ideal sampler needs a simulated cohort; build it with --simulate-followup"
        )
    stored = simulation["settings"]
    return parse(settings_class(stored.get("law")), stored, "simulation.settings")
