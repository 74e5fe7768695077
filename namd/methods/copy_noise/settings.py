"""Configuration of the copy with noise. Torch-free."""

from dataclasses import dataclass, field

from namd.methods.shared.settings import MethodConfig


@dataclass(frozen=True)
class NoiseSettings:
    """Stage `noise_spectrum`, and what is drawn from it.

    Attributes:
        strength: Multiplies the noise's deviation; 1: that of the pairs, 0: the baseline itself.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        """Reject a negative strength."""
        if self.strength < 0:
            raise ValueError(f"strength is 0 or more, not {self.strength}")


@dataclass(frozen=True)
class CopyNoiseConfig(MethodConfig):
    """One section of its own."""

    method: str = "copy_noise"
    noise: NoiseSettings = field(default_factory=NoiseSettings)
