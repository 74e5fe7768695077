"""The noise schedule and the sampler as values. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER

MAXIMUM_SHIFT = 10.0
"""Of log SNR: a factor of 22,026, beyond which a schedule is all noise or none."""


@dataclass(frozen=True)
class NoiseScheduleSettings:
    """How noise grows with the timestep; the names are diffusers'. The defaults are SD1.5's.

    The same values serve training and sampling, so they are stored with the trained network.

    Attributes:
        num_train_timesteps: T.
        beta_start: Variance added by the first step.
        beta_end: Variance added by the last.
        kind: `scaled_linear` is linear in sqrt(beta), `linear` in beta.
        prediction_type: What the network predicts: the noise (`epsilon`, the paper's), or
            `v_prediction` (Salimans and Ho 2022): its squared error weighs the clean image at
            every noise level alike, where epsilon's all but ignores it at the highest, which is
            where a record decides between a benign and a malignant follow-up.
        timestep_spacing: `leading` or `trailing` (Lin et al. 2024, Table 2). `linspace` is not
            offered: its last step, at timestep 0, changes nothing, and diffusers' step length
            does not fit its grid.
        steps_offset: Added to `leading` timesteps.
        set_alpha_to_one: Whether the last step goes to no noise at all, or to timestep 0's.
        clip_sample: Whether predicted clean latents are clamped to [-1, 1].
        rescale_betas_zero_snr: Whether the last timestep is nothing but noise (Lin et al. 2024,
            Algorithm 1), as the first sampling step supposes. SD's own schedule leaves 0.07 of
            the latents there: a network learns to read their mean level from it, and finds that
            of the average image in every draw's first noise. Needs `v_prediction`: where no
            signal is left, epsilon says nothing about it.
        log_snr_shift: Added to log(abar_t / (1 - abar_t)) at every timestep: the shifted schedule
            of simple diffusion (Hoogeboom et al. 2023, Eq 5), where latents of side d take
            2 log(64 / d); 0: none. Above 0 there is less noise everywhere, so that the last
            timestep keeps more signal, unless `rescale_betas_zero_snr` leaves none to shift.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 8.5e-4
    beta_end: float = 1.2e-2
    kind: Literal["scaled_linear", "linear"] = "scaled_linear"
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing"] = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    clip_sample: bool = False
    rescale_betas_zero_snr: bool = False
    log_snr_shift: float = field(default=0.0, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject schedules that cannot be."""
        if self.num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps is 1 or more, not {self.num_train_timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                "0 < beta_start <= beta_end < 1 does not hold for "
                f"{self.beta_start}, {self.beta_end}"
            )
        if self.steps_offset not in (0, 1):
            raise ValueError(f"steps_offset is 0 or 1, not {self.steps_offset}")
        if self.timestep_spacing == "leading" and not (self.steps_offset or self.set_alpha_to_one):
            raise ValueError(
                "the last sampling step would change nothing: steps_offset 0 needs "
                "set_alpha_to_one, got steps_offset 0 and set_alpha_to_one False"
            )
        if abs(self.log_snr_shift) > MAXIMUM_SHIFT:
            raise ValueError(
                f"log_snr_shift lies in [-{MAXIMUM_SHIFT:g}, {MAXIMUM_SHIFT:g}], "
                f"not {self.log_snr_shift}"
            )
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr needs prediction_type v_prediction, not epsilon: a last "
                "timestep of pure noise tells nothing of the latents"
            )

    @property
    def max_inference_steps(self) -> int:
        """Steps that a sampler can take: T, or T - 1 where an offset would pass the last one."""
        offset = self.steps_offset if self.timestep_spacing == "leading" else 0
        return self.num_train_timesteps - offset


@dataclass(frozen=True)
class TimestepSettings:
    """At which timesteps a network is trained. Validation always spreads them evenly.

    Attributes:
        kind: `uniform`, or `log_normal` (EDM, Karras et al. 2022, Section 5): log sigma is normal,
            sigma = sqrt((1 - abar_t) / abar_t), and the timestep is the first with as much noise.
        log_sigma_mean: Of that normal; EDM's -1.2 is for data of deviation 0.5, -0.5 for 1.
        log_sigma_std: Likewise.
    """

    kind: Literal["uniform", "log_normal"] = "uniform"
    log_sigma_mean: float = -0.5
    log_sigma_std: float = 1.2

    def __post_init__(self) -> None:
        """Reject a deviation that is none."""
        if self.log_sigma_std <= 0:
            raise ValueError(f"log_sigma_std is above 0, not {self.log_sigma_std}")


@dataclass(frozen=True)
class DDIMSettings:
    """The sampler (Song et al. 2021).

    Attributes:
        num_inference_steps: Timesteps of the grid; each is one network evaluation of a draw.
        eta: 0 is deterministic given the first noise, 1 has DDPM's variance.
        skipped_steps: How many of the grid's highest timesteps are passed over; pure noise then
            stands at the next one. NAMD's released code has 1: of 50 steps from t = 981 it takes
            the 49 from t = 961.
    """

    num_inference_steps: int = 50
    eta: float = 0.0
    skipped_steps: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject impossible numbers."""
        if self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is 1 or more, not {self.num_inference_steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta lies in [0, 1], not {self.eta}")
        if not 0 <= self.skipped_steps < self.num_inference_steps:
            raise ValueError(
                f"skipped_steps is 0 or more and below num_inference_steps "
                f"{self.num_inference_steps}, not {self.skipped_steps}"
            )
