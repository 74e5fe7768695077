"""Stage `vae`: the autoencoder and its aligned latent space (NAMD Eq 2-6)."""

import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from namd.data.features import NoduleFeatures
from namd.diffusion.noise import training_noise
from namd.losses.alignment import alignment_loss, pool_latents
from namd.losses.gather import gather_rows
from namd.losses.kl import kl_loss
from namd.losses.prediction import prediction_loss
from namd.losses.reconstruction import reconstruction_loss
from namd.losses.settings import MINIMUM_CASES
from namd.losses.total import LossTerm, StepOutput, weighted_sum
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import CropBatch, CropSet, read_split
from namd.methods.shared.perceptual_distance import Distance, distance_of
from namd.methods.shared.settings import AlignmentSettings, VAESettings
from namd.models.initialisation import initialised_from
from namd.models.vae import GreyAutoencoder, Posterior, build_vae, save_vae
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "vae"
BATCH = 64


class VAEObjective(nn.Module):
    """The five-term loss of Eq 6. A term of weight 0 is not computed."""

    def __init__(
        self, vae: GreyAutoencoder, probe: nn.Linear, settings: VAESettings, distance: Distance
    ) -> None:
        super().__init__()
        self.vae = vae
        self.probe = probe
        self.settings = settings
        self.distance = distance

    def forward(self, batch: tuple[CropBatch, Tensor]) -> StepOutput:
        """Return the weighted sum and every term; `batch` is crops and posterior noise."""
        crops, noise = batch
        posterior = self.vae.encode(crops.images)
        latents = posterior.sample(noise)
        reconstructions = self.vae.decode(latents)
        settings = self.settings
        return weighted_sum(
            [
                LossTerm(
                    "reconstruction",
                    settings.reconstruction.weight,
                    lambda: reconstruction_loss(reconstructions, crops.images),
                ),
                LossTerm(
                    "kl", settings.kl.weight, lambda: kl_loss(posterior.mean, posterior.logvar)
                ),
                LossTerm(
                    "perceptual",
                    settings.perceptual.weight,
                    lambda: self.distance(reconstructions, crops.images),
                ),
                LossTerm(
                    "alignment", settings.alignment.weight, lambda: self._alignment(latents, crops)
                ),
                LossTerm(
                    "prediction",
                    settings.prediction.weight,
                    lambda: self._prediction(latents, crops),
                ),
            ]
        )

    def _alignment(self, latents: Tensor, crops: CropBatch) -> Tensor | StepOutput:
        settings = self.settings.alignment
        z = gather_rows(pool_latents(latents, settings.pooling))
        features, mask = gather_rows(crops.features), gather_rows(crops.complete.bool())
        if int(mask.sum()) < MINIMUM_CASES:
            return z.sum() * 0.0
        output = alignment_loss(
            z,
            features,
            sigma_z=settings.sigma_z,
            sigma_f=settings.sigma_f,
            temperature=settings.temperature,
            mask=mask,
        )
        return StepOutput(
            output.loss,
            {
                "perplexity_p": output.perplexity_p,
                "perplexity_q": output.perplexity_q,
                "perplexity_p_share": output.perplexity_p / (output.num_cases - 1),
            },
        )

    def _prediction(self, latents: Tensor, crops: CropBatch) -> Tensor:
        logits = self.probe(latents.flatten(1))[:, 0]
        return prediction_loss(logits, crops.labels, ~crops.labels.isnan())


def run(context: StageContext) -> Iterator[Step]:
    """Train on train crops of both time points, keep the best by validation loss.

    Writes the VAE in diffusers' format, its scaling factor and the feature statistics.
    """
    settings, seed = context.settings.vae, context.settings.train_seed
    train_cohort = read_split(context.cohort, "train")
    features = NoduleFeatures.fit(train_cohort.table, context.settings.features.normalisation)
    filled = context.settings.features.missing == "filled"
    crops = CropSet(train_cohort, context.settings.image, features, filled=filled)
    validation = read_split(context.cohort, "validation")
    held_out = CropSet(validation, context.settings.image, features, filled=filled)
    objective = _build(context).to(context.world.device)
    if crops.unhonoured:
        context.warn(crops.unhonoured)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(crops)),
        context.world,
        context.settings.precision,
        seed,
    )
    validate = _validator(context, objective, held_out)
    said: set[str] = set()
    for step in fit(
        state, crop_batches(context, crops, objective.vae), validate, context.checkpoints
    ):
        for reason, line in _alignment_doubts(step.metrics, settings.alignment):
            if reason not in said:
                said.add(reason)
                context.warn(line)
        yield Step(step.index, step.total, step.metrics)
    save_vae(objective.vae, context.out, scaling_factor(context, objective.vae, crops))
    (context.out / "features.json").write_text(json.dumps(features.to_mapping()))


def _alignment_doubts(
    metrics: Mapping[str, float], settings: AlignmentSettings
) -> Iterator[tuple[str, str]]:
    """Yield why the alignment taught nothing in a window of steps: a word, and a line to tell."""
    if metrics.get("perplexity_p_share", 0.0) > 0.9:
        yield (
            "uniform",
            f"vae.alignment.sigma_f {settings.sigma_f} makes P nearly uniform "
            f"(perplexity {metrics['perplexity_p']:.1f}): L_align teaches next to nothing",
        )
    # A batch in which it was formed logs its perplexities; one in which it was not, a loss of 0.
    if "alignment" in metrics and "perplexity_p" not in metrics:
        yield (
            "incomplete",
            f"vae.alignment.weight {settings.weight} taught nothing for a while: no batch had "
            f"{MINIMUM_CASES} crops with all five nodule features; give them, or set it to 0",
        )


def _build(context: StageContext) -> VAEObjective:
    settings, image = context.settings.vae, context.settings.image
    with initialised_from(NAME, context.settings.train_seed):
        vae = build_vae(settings.architecture)
        positions = (image.size // vae.downsampling) ** 2
        probe = nn.Linear(vae.latent_channels * positions, 1)
    # On a CPU convolutions over channels-last tensors take two thirds of the time.
    vae.to(memory_format=torch.channels_last)
    return VAEObjective(vae, probe, settings, distance_of(context, settings.perceptual.weight))


def crop_batches(
    context: StageContext, crops: CropSet, vae: GreyAutoencoder
) -> Callable[[int], tuple[CropBatch, Tensor]]:
    """Return the batches of section `vae` by number: crops and the noise of their samples."""
    settings, seed = context.settings.vae, context.settings.train_seed
    order = CaseOrder(NAME, seed, len(crops), settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)
    side = context.settings.image.size // vae.downsampling
    shape = (vae.latent_channels, side, side)

    def batch(step: int) -> tuple[CropBatch, Float[Tensor, "B C h w"]]:
        turns = crops.turns(NAME, seed, step, settings.batch_size)
        noise = training_noise(seed, NAME, step, settings.batch_size, shape)
        device = context.world.device
        return crops.batch(order.at(step)[part], turns[part], device), noise[part].to(device)

    return batch


def _validator(
    context: StageContext, objective: VAEObjective, crops: CropSet
) -> Callable[[], dict[str, float]]:
    side = context.settings.image.size // objective.vae.downsampling
    shape = (objective.vae.latent_channels, side, side)
    # Whole batches only, so that every term is a mean over as many pairs; the rest is left out.
    starts = range(0, max(1, len(crops) - BATCH + 1), BATCH)

    def validate() -> dict[str, float]:
        sums: dict[str, float] = {}
        for start in starts:
            index = np.arange(start, min(start + BATCH, len(crops)))
            noise = training_noise(0, NAME, start, len(index), shape, purpose="validation-noise")
            device = context.world.device
            with autocast(context.settings.precision, device):
                output = objective((crops.batch(index, device=device), noise.to(device)))
            for name, value in output.metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(starts)
        return {f"validation_{name}": value for name, value in sums.items()}

    return validate


@torch.no_grad()
def scaling_factor(context: StageContext, vae: GreyAutoencoder, crops: CropSet) -> float:
    """Return 1 / std of sampled latents over the train split (NAMD's code; not SD's 0.18215)."""
    total = squares = 0.0
    count = 0
    for start in range(0, len(crops), BATCH):
        index = np.arange(start, min(start + BATCH, len(crops)))
        posterior: Posterior = vae.encode(crops.batch(index, device=context.world.device).images)
        noise = training_noise(
            0, NAME, start, len(index), posterior.mean.shape[1:], purpose="scaling-noise"
        )
        z = posterior.sample(noise.to(posterior.mean.device)).double()
        total, squares, count = (
            total + float(z.sum()),
            squares + float(z.square().sum()),
            count + z.numel(),
        )
    return float(1 / np.sqrt(squares / count - (total / count) ** 2))
