"""Configuration sections of the methods that diffuse latents. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER
from namd.data.report import FEATURES
from namd.diffusion.settings import DDIMSettings, NoiseScheduleSettings, TimestepSettings
from namd.methods.shared.settings import LatentSettings
from namd.models.settings import VAEArchitecture
from namd.train.settings import TrainingSettings


@dataclass(frozen=True)
class DenoisingSettings(TrainingSettings):
    """What both U-Net stages have: at which noise levels they learn, and the weight of each.

    Attributes:
        timesteps: Of training batches.
        min_snr_gamma: Weighs errors by min(SNR, gamma) of the clean latents in training (Hang et
            al. 2023: 5), never in validation; null: all squared errors alike, as in the paper.
    """

    timesteps: TimestepSettings = field(default_factory=TimestepSettings, metadata=LATER)
    min_snr_gamma: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject weights that are not above 0."""
        super().__post_init__()
        if self.min_snr_gamma is not None and self.min_snr_gamma <= 0:
            raise ValueError(f"min_snr_gamma is above 0 or null, not {self.min_snr_gamma}")


@dataclass(frozen=True)
class ReportSettings:
    """Which features the report tells, and whether it tells the perpendicular diameter.

    Attributes:
        include: Feature names in NLST's spelling; empty: no record at all.
        perpendicular: Add the perpendicular diameter, which the paper's sentence leaves out.
        missing: What a record lacks is `omitted` [ours], or `filled`: a missing margin becomes 3
            and missing family flags 0, as in the released code.
    """

    include: tuple[str, ...] = FEATURES
    perpendicular: bool = False
    missing: Literal["omitted", "filled"] = field(default="omitted", metadata=LATER)

    def __post_init__(self) -> None:
        """Reject a feature that no report knows."""
        unknown = [name for name in self.include if name not in FEATURES]
        if unknown:
            raise ValueError(f"include knows {', '.join(FEATURES)}; not {', '.join(unknown)}")


@dataclass(frozen=True)
class DrawSettings:
    """Stage `draws`: how follow-ups are drawn.

    Attributes:
        ddim: Steps and eta.
        guidance_scale: 1: none (the paper); above 1 needs `finetune.condition_dropout`.
        guidance_interval: Lowest and highest sigma = sqrt((1 - abar_t) / abar_t) at which guidance
            applies (Kynkaanniemi et al. 2024); null: at every noise level.
        record: Whose record conditions a case: its `own`, or another's (`shuffled`, a control
            that must do worse).
    """

    ddim: DDIMSettings = field(default_factory=DDIMSettings)
    guidance_scale: float = 1.0
    record: Literal["own", "shuffled"] = "own"
    guidance_interval: tuple[float, float] | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject an interval that holds nothing."""
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high:
                raise ValueError(f"guidance_interval: 0 <= low < high, not {[low, high]}")


def require_fitting_latents(size: int, vae: VAEArchitecture, latents: LatentSettings) -> None:
    """Raise ValueError unless images of that side give whole latent positions, folded or not."""
    if size % vae.downsampling:
        raise ValueError(
            f"image.size {size} is not a multiple of the VAE's factor {vae.downsampling}"
        )
    if size % (vae.downsampling * latents.fold):
        raise ValueError(
            f"latents.fold {latents.fold} does not divide the "
            f"{size // vae.downsampling} latent positions of a side"
        )


def require_samplable(draws: DrawSettings, noise_schedule: NoiseScheduleSettings) -> None:
    """Raise ValueError unless the schedule has as many timesteps as the sampler takes."""
    steps, most = draws.ddim.num_inference_steps, noise_schedule.max_inference_steps
    if steps > most:
        raise ValueError(
            f"draws.ddim.num_inference_steps {steps} is more than the {most} steps that "
            "noise_schedule allows"
        )
