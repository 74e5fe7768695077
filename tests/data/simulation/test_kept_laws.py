"""Cohorts under the older laws stay what they were: their fingerprints name artifacts in stores.

The digests were taken before the law `sober` came, with `Cohort.fingerprint` over every column and
`card.simulation`.
"""

import hashlib

import numpy as np
import pytest

from namd.config.fingerprint import fingerprint
from namd.config.parsing import to_mapping
from namd.data.simulation.ideal import redraw
from namd.data.simulation.settings import SimulationSettings
from namd.data.simulation.simulate import simulate

SETTINGS = {
    ("marked", False): "d62b685fc2681439",
    ("marked", True): "608ca3b27340c1de",
    ("nlst", False): "7381d43fadc9f3ce",
    ("doubling-time", False): "3ddaa7ec93361399",
}
COHORTS = {
    "marked": ("1c73bff7eddc22f8", "1f5864231b6169b9"),
    "nlst": ("1c9104f44210a932", "1f5a5c668422a3fa"),
    "doubling-time": ("8dc399061e400a7e", "64e4d7d795ec77d6"),
}


def digests(nodules, law, **changed):
    settings = SimulationSettings.for_law(law, replicates=2)
    cohort = simulate(nodules.select(np.arange(12)), settings, **{"seed": 101, **changed})
    columns = [*cohort.to_arrow().column_names, "card.simulation"]
    drawn = hashlib.sha256(redraw(cohort, range(6), 3, 0).tobytes()).hexdigest()
    return cohort.fingerprint(columns)[:16], drawn[:16]


@pytest.mark.parametrize(("law", "rendered"), SETTINGS)
def test_the_settings_of_a_law_keep_their_fingerprint(law, rendered):
    settings = SimulationSettings.for_law(law, rendered=rendered)
    assert fingerprint(to_mapping(settings))[:16] == SETTINGS[law, rendered]
    assert (
        fingerprint(to_mapping(SimulationSettings.for_law("sober")))[:16] not in SETTINGS.values()
    )


@pytest.mark.parametrize("law", COHORTS)
def test_a_cohort_and_its_redraws_keep_their_fingerprint(nodules, law):
    assert digests(nodules, law) == COHORTS[law]


def test_another_seed_has_another_fingerprint(nodules):
    assert digests(nodules, "nlst", seed=102) != COHORTS["nlst"]
