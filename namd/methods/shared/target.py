"""What stage `finetune` diffuses, and the follow-up that comes of it: two forms, one interface."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from namd.methods.shared.latents import PairedLatents

FILE = "target.json"


@dataclass(frozen=True)
class FollowupTarget:
    """The follow-up itself, sampled from its posterior (NAMD Eq 10)."""

    def of(
        self,
        sample: Float[Tensor, "B C h w"],
        followup: Float[Tensor, "B C h w"],  # noqa: ARG002
        baseline: Float[Tensor, "B C h w"],  # noqa: ARG002
    ) -> Float[Tensor, "B C h w"]:
        """Return the posterior sample; the other two are posterior means."""
        return sample

    def followup(
        self,
        diffused: Float[Tensor, "B C h w"],
        condition: Float[Tensor, "B C h w"],  # noqa: ARG002
    ) -> Float[Tensor, "B C h w"]:
        """Return what was drawn."""
        return diffused

    def save(self, folder: Path) -> None:
        """Write nothing: this is what an artifact without a file means."""


@dataclass(frozen=True)
class ResidualTarget:
    """The change between posterior means [ours; cf. ResShift, I2SB, CorrDiff].

    The change has a twentieth of the follow-up's variance, so that a loss on the follow-up mostly
    teaches to copy the baseline.

    Attributes:
        deviation: Of the change over the train pairs, by which it is divided.
    """

    deviation: float

    def of(
        self,
        sample: Float[Tensor, "B C h w"],  # noqa: ARG002
        followup: Float[Tensor, "B C h w"],
        baseline: Float[Tensor, "B C h w"],
    ) -> Float[Tensor, "B C h w"]:
        """Return the scaled change between the posterior means."""
        return (followup - baseline) / self.deviation

    def followup(
        self, diffused: Float[Tensor, "B C h w"], condition: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B C h w"]:
        """Return the baseline's posterior mean, the condition, with the change added."""
        return condition + self.deviation * diffused

    def save(self, folder: Path) -> None:
        """Write the deviation."""
        content = {"target": "residual", "deviation": self.deviation}
        (folder / FILE).write_text(json.dumps(content, sort_keys=True))


Target = FollowupTarget | ResidualTarget


def measured_target(kind: Literal["followup", "residual"], train: PairedLatents) -> Target:
    """Return the target of a configuration, its deviation measured on the train pairs."""
    if kind == "followup":
        return FollowupTarget()
    change = (train.followup.mean - train.baseline.mean).double()
    return ResidualTarget(float(change.std()))


def load_target(folder: Path) -> Target:
    """Undo `save`."""
    path = folder / FILE
    if not path.is_file():
        return FollowupTarget()
    return ResidualTarget(float(json.loads(path.read_text())["deviation"]))
