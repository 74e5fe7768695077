"""Stage `latent_sde`: reconstruction at tau 0 and prediction at tau, in one step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.diffusion.noise import training_noise
from namd.losses.total import LossTerm, StepOutput, weighted_sum
from namd.methods.base import StageContext, Step
from namd.methods.imageflownet.network import EvolvingUNet, held_fixed
from namd.methods.imageflownet.noise import case_noise
from namd.methods.imageflownet.sde import Noise
from namd.methods.imageflownet.settings import ImageFlowNetSettings
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.pair_set import PairBatch, PairSet
from namd.models.initialisation import initialised_from
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "latent_sde"
FILE = "network.safetensors"
VALIDATION_BATCH = 32
VALIDATION_SEED = 0


@dataclass(frozen=True)
class FlowBatch:
    """Pairs as they are, as the network sees them, and the noise of their SDEs.

    Attributes:
        clean: The pairs.
        inputs: The pairs with input noise.
        noise: Of the SDEs that predict the follow-ups.
    """

    clean: PairBatch
    inputs: PairBatch
    noise: Noise


class ImageFlowNet(nn.Module):
    """L = w_rec L_rec + w_pred L_pred, both of one optimiser step.

    Args:
        network: What is trained.
        settings: Weights and the rule by which the prediction stops training the U-Net.

    Attributes:
        frozen: 1 once the prediction trains the SDEs alone. A buffer: checkpoints hold it.
    """

    frozen: Tensor

    def __init__(self, network: EvolvingUNet, settings: ImageFlowNetSettings) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.frozen: Tensor
        self.register_buffer("frozen", torch.zeros((), dtype=torch.uint8))

    def forward(self, batch: FlowBatch) -> StepOutput:
        """Return the weighted sum of both losses, each unweighted in the log."""
        return weighted_sum(
            [
                LossTerm(
                    "reconstruction",
                    self.settings.reconstruction.weight,
                    lambda: self.reconstruction_loss(batch),
                ),
                LossTerm(
                    "prediction",
                    self.settings.prediction.weight,
                    lambda: self.prediction_loss(batch),
                ),
            ]
        )

    def reconstruction_loss(self, batch: FlowBatch) -> Float[Tensor, ""]:
        """Return L_rec = mean (D(E(x)) - x)^2 over both images of every pair."""
        inputs = torch.cat([batch.inputs.baseline, batch.inputs.followup])
        clean = torch.cat([batch.clean.baseline, batch.clean.followup])
        return _squared(self.network.reconstruct(inputs), clean)

    def prediction_loss(self, batch: FlowBatch) -> Float[Tensor, ""]:
        """Return L_pred = mean (D(h(tau)) - x2)^2, h(0) = E(x1).

        Its gradient reaches the U-Net until `frozen`, then the SDEs alone.
        """
        if not bool(self.frozen):
            drawn = self.network.predict(batch.inputs.baseline, batch.noise)
        else:
            with held_fixed(self.network.unet):
                drawn = self.network.predict(batch.inputs.baseline, batch.noise)
        return _squared(drawn, batch.clean.followup)

    def note_reconstruction(self, psnr: float) -> None:
        """Freeze the U-Net for the prediction once a validation exceeds `freeze_psnr`, for good."""
        limit = self.settings.freeze_psnr
        if limit is not None and psnr > limit:
            self.frozen.fill_(1)


def _squared(images: Tensor, truth: Tensor) -> Tensor:
    return (images - truth).float().square().mean()


def psnr(mean_square: float) -> float:
    """Return the PSNR in dB of images in [-1, 1], whose range is 2."""
    return float(10 * np.log10(4 / max(mean_square, 1e-12)))


def run(context: StageContext) -> Iterator[Step]:
    """Train on train pairs, keep what predicts validation best; writes network.safetensors."""
    settings, seed = context.settings.imageflownet, context.settings.train_seed
    pairs, held_out = (
        PairSet(read_split(context.cohort, split), context.settings.image)
        for split in ("train", "validation")
    )
    with initialised_from(NAME, seed):
        network = EvolvingUNet(settings.architecture, settings.sde, context.settings.image.size)
    objective = ImageFlowNet(network, settings).to(context.world.device)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(pairs)),
        context.world,
        context.settings.precision,
        seed,
    )
    validate = _validator(context, objective, held_out)
    for step in fit(state, batches(context, pairs), validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_file(network.state_dict(), context.out / FILE)


def batches(context: StageContext, pairs: PairSet) -> Callable[[int], FlowBatch]:
    """Return training batches as a function of the step: this rank's part of each."""
    settings, seed = context.settings.imageflownet, context.settings.train_seed
    size, device = settings.batch_size, context.world.device
    order = CaseOrder(NAME, seed, len(pairs), size)
    part = share_of(size, context.world.rank, context.world.size)

    def batch(step: int) -> FlowBatch:
        def noise(name: str, n: int, shape: Sequence[int]) -> Tensor:
            drawn = training_noise(seed, NAME, step, size, shape, f"latent-sde-{name}-{n}")
            return drawn[part].to(device)

        index = order.at(step)
        clean = pairs.batch(index[part], pairs.turns(NAME, seed, step, size)[part], device)
        added = input_noise(settings, seed, step, clean.baseline.shape[2:])[part].to(device)
        inputs = PairBatch(clean.baseline + added[:, :1], clean.followup + added[:, 1:])
        return FlowBatch(clean, inputs, noise)

    return batch


def input_noise(
    settings: ImageFlowNetSettings, seed: int, step: int, shape: Sequence[int]
) -> Float[Tensor, "B 2 H W"]:
    """Return a e for both images of each pair, a ~ U(0, input_noise) an image, e ~ N(0, 1)."""
    white = training_noise(seed, NAME, step, settings.batch_size, (2, *shape), "input-noise")
    rng = generator("input-noise-amplitude", seed, NAME, step)
    amplitudes = rng.uniform(0, settings.input_noise, (settings.batch_size, 2, 1, 1))
    return white * torch.from_numpy(amplitudes.astype(np.float32))


def _validator(
    context: StageContext, objective: ImageFlowNet, pairs: PairSet
) -> Callable[[], dict[str, float]]:
    """Return the validation: mean squared errors over all pairs, one draw each, the same always."""
    network, device = objective.network, context.world.device

    def errors(index: np.ndarray) -> np.ndarray:
        batch = pairs.batch(index, device=device)
        noise = case_noise("validation", VALIDATION_SEED, pairs.case_ids[index], 0, device)
        with autocast(context.settings.precision, device):
            drawn = network.predict(batch.baseline, noise)
            images = torch.cat([batch.baseline, batch.followup])
            rebuilt = _squared(network.reconstruct(images), images)
        return len(index) * np.array([float(_squared(drawn, batch.followup)), float(rebuilt)])

    def validate() -> dict[str, float]:
        starts = range(0, len(pairs), VALIDATION_BATCH)
        parts = [np.arange(n, min(n + VALIDATION_BATCH, len(pairs))) for n in starts]
        predicted, rebuilt = np.sum([errors(index) for index in parts], axis=0) / len(pairs)
        objective.note_reconstruction(psnr(rebuilt))
        return {
            "validation_loss": float(predicted),
            "validation_psnr": psnr(predicted),
            "reconstruction_psnr": psnr(rebuilt),
            "unet_frozen": float(objective.frozen),
        }

    return validate
