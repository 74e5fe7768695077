from dataclasses import replace

import pytest

from namd.config.errors import ConfigError
from namd.config.parsing import parse, to_mapping
from namd.data.simulation.record import draw_patient
from namd.data.simulation.settings import (
    RENDERED_IMAGE_FACTOR,
    RecordSettings,
    ScanSettings,
    SignSettings,
    SimulationSettings,
)


def test_settings_survive_the_card():
    settings = SimulationSettings.for_law("nlst", replicates=2)
    assert parse(SimulationSettings, to_mapping(settings)) == settings


def test_published_laws_show_no_sign_and_the_default_does():
    assert SimulationSettings.for_law("nlst").signs.strength == 0
    assert SimulationSettings.for_law("doubling-time").signs.strength == 0
    assert SimulationSettings.for_law("marked") == SimulationSettings()
    assert SimulationSettings().signs.strength > 0


def test_rendered_crops_have_a_default_of_their_own_and_the_published_laws_do_not():
    def marked(rendered: bool) -> SimulationSettings:
        return SimulationSettings.for_law("marked", rendered=rendered)

    assert marked(True) == replace(marked(False), image_factor=RENDERED_IMAGE_FACTOR)
    assert marked(False).image_factor != RENDERED_IMAGE_FACTOR
    nlst = SimulationSettings.for_law("nlst", rendered=True)
    assert nlst == SimulationSettings.for_law("nlst")


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (SimulationSettings, {"replicates": 0}),
        (SimulationSettings, {"prevalence": 1.0}),
        (SimulationSettings, {"image_factor": -1.0}),
        (SimulationSettings, {"record_factor": float("nan")}),
        (SignSettings, {"sensitivity": 1.2}),
        (SignSettings, {"core_hu": 400.0}),
        (SignSettings, {"num_spicules": (6, 3)}),
        (RecordSettings, {"male": -0.1}),
        (RecordSettings, {"youngest_years": 80.0}),
        (RecordSettings, {"youngest_years": -1.0}),
        (RecordSettings, {"youngest_years": 110.0, "oldest_years": 120.0}),
        (RecordSettings, {"oldest_years": 121.0}),
        (RecordSettings, {"mean_age_years": 500.0}),
        (ScanSettings, {"noise_hu": (20.0, 10.0)}),
    ],
)
def test_impossible_values_are_named(cls, wrong):
    cls()
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        cls(**wrong)


@pytest.mark.parametrize(
    "years", [(0.0, 120.0), (0.0, 40.0), (89.0, 90.0), (63.0, 63.5)], ids="{0[0]}-{0[1]}".format
)
def test_every_window_of_ages_that_is_taken_gives_ages_within_it(years):
    youngest, oldest = years
    settings = RecordSettings(youngest_years=youngest, oldest_years=oldest)
    for patient in range(50):
        age = draw_patient(settings, 0, "patient", patient)["age"]
        assert youngest - 0.5 <= age <= oldest + 0.5  # whole years


def test_an_unknown_law_is_refused_with_the_known_ones():
    assert parse(SimulationSettings, {"law": "nlst"}).law == "nlst"
    with pytest.raises(ConfigError, match="gompertz"):
        parse(SimulationSettings, {"law": "gompertz"})
