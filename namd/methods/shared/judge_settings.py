"""How the judge is trained, as values; its shape is `namd.models.judge_settings`. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.models.judge_settings import JudgeArchitecture
from namd.train.settings import TrainingSettings


@dataclass(frozen=True)
class JudgeSettings(TrainingSettings):
    """Stage `judge`: one judge for all rows of a table and all training seeds of a study.

    Attributes:
        architecture: Of the vision transformer.
        seed: Its own seed: were it the training seed, arms would be judged by different judges.
        shift: Largest random shift in pixels, either way along each axis, in training.
        noise: Standard deviation of Gaussian noise added in training, in units of [-1, 1].
        mirror: Whether half of the crops are seen in a mirror in training.
        label_smoothing: Labels become smoothing/2 and 1 - smoothing/2 in the training loss.
    """

    num_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 50
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    max_norm: float | None = 1.0
    validate_every: int = 50
    architecture: JudgeArchitecture = field(default_factory=JudgeArchitecture)
    seed: int = 0
    shift: int = 2
    noise: float = 0.02
    mirror: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Reject impossible augmentation."""
        super().__post_init__()
        if not 0 <= self.shift < self.architecture.image_size // 2:
            raise ValueError(f"shift is 0 or more and below half an image, not {self.shift}")
        if self.noise < 0:
            raise ValueError(f"noise is 0 or more, not {self.noise}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing lies in [0, 1), not {self.label_smoothing}")
