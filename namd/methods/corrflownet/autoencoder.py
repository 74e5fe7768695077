"""Stage `vae` of CorrFlowNet: the correlational autoencoder with its auxiliary classifier."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from namd.data.cohort import Cohort
from namd.diffusion.noise import training_noise
from namd.losses.gather import gather_rows
from namd.losses.kl import kl_loss
from namd.losses.prediction import prediction_loss
from namd.losses.reconstruction import reconstruction_loss
from namd.losses.total import LossTerm, StepOutput, weighted_sum
from namd.methods.base import StageContext, Step
from namd.methods.corrflownet.pairs import read_pairs
from namd.methods.corrflownet.settings import CorrelationalSettings
from namd.methods.shared.pair_set import PairSet
from namd.methods.shared.perceptual_distance import Distance, distance_of
from namd.methods.shared.settings import ImageSettings
from namd.models.initialisation import initialised_from
from namd.models.vae import GreyAutoencoder, build_vae, save_vae
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "correlational-autoencoder"
BATCH = 64
EPSILON = 1e-8


@dataclass(frozen=True)
class LabelledBatch:
    """Pairs, each with its label and the noise of two posterior samples.

    Attributes:
        images: In [-1, 1]: all baselines, then all follow-ups.
        labels: Of the cases: 1 malignant, 0 benign, NaN unknown.
        noise: Standard normal, in the order of the images.
    """

    images: Float[Tensor, "B2 1 H W"]
    labels: Float[Tensor, " B"]
    noise: Float[Tensor, "B2 C h w"]


class LabelledPairs(PairSet):
    """Pairs with the labels of their cases."""

    def __init__(self, cohort: Cohort, image: ImageSettings) -> None:
        super().__init__(cohort, image)
        paired = np.flatnonzero(np.asarray(cohort.has_followup))
        labels = cohort.table["label"].astype("float32").to_numpy(na_value=np.nan)
        self.labels = labels[paired]

    def labelled(
        self, index: np.ndarray, turn: np.ndarray | None, noise: Tensor, device: str
    ) -> LabelledBatch:
        """Return pairs by number; both images of one take the angle that `turn` names."""
        pairs = self.batch(index, turn, device)
        return LabelledBatch(
            torch.cat([pairs.baseline, pairs.followup]),
            torch.from_numpy(self.labels[index]).to(device),
            noise.to(device),
        )


def correlation(one: Float[Tensor, "B D"], other: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return (1/D) sum_d corr_B(z1_d, z2_d): Pearson's over the batch, mean over dimensions.

    A dimension that does not vary over the batch counts as uncorrelated.
    """
    first, second = one.float(), other.float()
    first, second = first - first.mean(0), second - second.mean(0)
    variances = first.square().mean(0) * second.square().mean(0)
    return ((first * second).mean(0) / (variances + EPSILON).sqrt()).mean()


class CorrelationalObjective(nn.Module):
    """L_AE = |D(z1)-x1| + |D(z2)-x2| + perceptual - lc corr(z1, z2) + lcls BCE + lKL KL.

    Perceptual distance, KL and BCE are means over both images of a pair. The correlation is that of
    the posterior means, which the flow joins; everything else reads posterior samples.
    """

    def __init__(
        self,
        vae: GreyAutoencoder,
        classifier: nn.Linear,
        settings: CorrelationalSettings,
        distance: Distance,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.classifier = classifier
        self.settings = settings
        self.distance = distance

    def forward(self, batch: LabelledBatch) -> StepOutput:
        """Return the weighted sum and every term."""
        settings, images = self.settings, batch.images
        posterior = self.vae.encode(images)
        latents = posterior.sample(batch.noise)
        decoded = self.vae.decode(latents)
        terms = [
            LossTerm(
                "reconstruction",
                settings.reconstruction.weight,
                # Half of the images are baselines: twice the mean is the sum of both means.
                lambda: 2 * reconstruction_loss(decoded, images),
            ),
            LossTerm(
                "perceptual", settings.perceptual.weight, lambda: self.distance(decoded, images)
            ),
            LossTerm("kl", settings.kl.weight, lambda: kl_loss(posterior.mean, posterior.logvar)),
            LossTerm(
                "correlation",
                -settings.correlation.weight,
                lambda: _correlation_of_pairs(posterior.mean),
            ),
            LossTerm(
                "classification",
                settings.classification.weight,
                lambda: self._classification(latents, batch.labels),
            ),
        ]
        return weighted_sum(terms)

    def _classification(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of labels read from either time point's latents alone."""
        logits = self.classifier(latents.flatten(1))[:, 0]
        both = torch.cat([labels, labels])
        return prediction_loss(logits, both, ~both.isnan())


def _correlation_of_pairs(means: Float[Tensor, "B2 C h w"]) -> Float[Tensor, ""]:
    """Return the correlation over the pairs of all workers."""
    before, after = means.flatten(1).chunk(2)
    return correlation(gather_rows(before), gather_rows(after))


def run(context: StageContext) -> Iterator[Step]:
    """Train on train pairs, keep the best by validation loss.

    Writes the VAE in diffusers' format and its scaling factor, as every method's autoencoder.
    """
    settings, seed = context.settings.vae, context.settings.train_seed
    pairs, held_out = (
        LabelledPairs(read_pairs(context, split), context.settings.image)
        for split in ("train", "validation")
    )
    objective = _build(context).to(context.world.device)
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
    for step in fit(state, _batches(context, pairs, objective), validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_vae(objective.vae, context.out, _scaling_factor(context, objective.vae, pairs))


def _build(context: StageContext) -> CorrelationalObjective:
    settings, image = context.settings.vae, context.settings.image
    with initialised_from(NAME, context.settings.train_seed):
        vae = build_vae(settings.architecture)
        positions = (image.size // vae.downsampling) ** 2
        classifier = nn.Linear(vae.latent_channels * positions, 1)
    vae.to(memory_format=torch.channels_last)
    distance = distance_of(context, settings.perceptual.weight)
    return CorrelationalObjective(vae, classifier, settings, distance)


def _latent_shape(context: StageContext, vae: GreyAutoencoder) -> tuple[int, int, int]:
    side = context.settings.image.size // vae.downsampling
    return vae.latent_channels, side, side


def _batches(
    context: StageContext, pairs: LabelledPairs, objective: CorrelationalObjective
) -> Callable[[int], LabelledBatch]:
    settings, seed = context.settings.vae, context.settings.train_seed
    order = CaseOrder(NAME, seed, len(pairs), settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)
    shape = (2, *_latent_shape(context, objective.vae))

    def batch(step: int) -> LabelledBatch:
        index = order.at(step)
        turns = pairs.turns(NAME, seed, step, len(index))
        noise = training_noise(seed, NAME, step, len(index), shape)[part]
        both = noise.transpose(0, 1).flatten(0, 1)
        return pairs.labelled(index[part], turns[part], both, context.world.device)

    return batch


def _validator(
    context: StageContext, objective: CorrelationalObjective, pairs: LabelledPairs
) -> Callable[[], dict[str, float]]:
    shape = _latent_shape(context, objective.vae)
    # Whole batches only, so that every term is a mean over as many pairs; the rest is left out.
    starts = range(0, max(1, len(pairs) - BATCH + 1), BATCH)

    def validate() -> dict[str, float]:
        sums: dict[str, float] = {}
        for start in starts:
            index = np.arange(start, min(start + BATCH, len(pairs)))
            noise = training_noise(
                0, NAME, start, 2 * len(index), shape, purpose="validation-noise"
            )
            batch = pairs.labelled(index, None, noise, context.world.device)
            with autocast(context.settings.precision, context.world.device):
                output = objective(batch)
            for name, value in output.metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(starts)
        return {f"validation_{name}": value for name, value in sums.items()}

    return validate


@torch.no_grad()
def _scaling_factor(context: StageContext, vae: GreyAutoencoder, pairs: PairSet) -> float:
    """Return 1 / std of the posterior means over both images of the train pairs."""
    means = []
    for start in range(0, len(pairs), BATCH):
        index = np.arange(start, min(start + BATCH, len(pairs)))
        batch = pairs.batch(index, device=context.world.device)
        both = torch.cat([batch.baseline, batch.followup])
        means.append(vae.encode(both).mean.double().flatten().cpu())
    return float(1 / torch.cat(means).std(correction=0))
