"""The stages of the copy with noise, and its entry in the registry. Torch-free.

No publication: a generator that cannot beat it has learned nothing about the nodule. All of it is
ours: the noise is Gaussian and stationary, with the mean power spectrum of follow-up minus baseline
over the train pairs, and knows neither case nor record. Nothing is trained: a training seed gives
other noise, so that the row's spread over seeds is that of the noise.
"""

from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.copy_noise.settings import CopyNoiseConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved

BODIES = "namd.methods.copy_noise.noise"


def stages(config: CopyNoiseConfig) -> tuple[Stage, ...]:
    """Return the spectrum of the train pairs' changes, then what every method has."""
    spectrum = Stage(
        family="noise_spectrum",
        code_version=1,
        role="map",
        body=f"{BODIES}:run",
        reads=("image",),
        cohort=CohortSlice(CROPS, ("train",)),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DrawerCode(f"{BODIES}:CopyNoiseDrawer", code_version=1),
        reads=("image", "noise"),
        upstream=("noise_spectrum",),
        columns=CROPS,
        seeds=("train_seed", "draw_seed"),
    )
    return (spectrum, *reference_stages(config.evaluate), *drawn)


METHOD = Method(
    name="copy_noise",
    title="Baseline with noise",
    paper="none: a row for comparison",
    stochastic=True,
    config_class=CopyNoiseConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
)
