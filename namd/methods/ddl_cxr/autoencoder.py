"""Stage `vae` of DDL-CXR: an autoencoder with a label head, and optionally a discriminator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from namd.diffusion.noise import training_noise
from namd.losses.kl import kl_loss
from namd.losses.prediction import prediction_loss
from namd.losses.reconstruction import reconstruction_loss
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.ddl_cxr.discriminator import build_discriminator
from namd.methods.ddl_cxr.losses import adaptive_weight, discriminator_loss
from namd.methods.ddl_cxr.settings import LabelVAESettings
from namd.methods.shared.crop_set import CropBatch, CropSet, read_split
from namd.methods.shared.perceptual_distance import Distance, distance_of
from namd.methods.shared.vae import crop_batches, scaling_factor
from namd.models.initialisation import initialised_from
from namd.models.vae import GreyAutoencoder, build_vae, save_vae
from namd.train.fit import fit
from namd.train.loop import TrainState, Update, autocast

NAME = "vae"
BATCH = 64
AUTOENCODER, DISCRIMINATOR = "autoencoder", "discriminator"


@dataclass(frozen=True)
class AutoencoderBatch:
    """Crops, the noise of their posterior samples, and the step that they are for."""

    crops: CropBatch
    noise: Tensor
    step: int


class LabelledAutoencoder(nn.Module):
    """L = L_rec + L_perc + 1e-6 L_KL + w_y BCE(W z, y) + w_D L_adv, w as `adaptive_weight` has it.

    The label's weight is taken at the last encoder layer, the discriminator's at the last decoder
    layer. In eval mode the loss is the first three terms alone: a weight that depends on
    gradients cannot be compared between validations.

    Attributes:
        discriminator: None if its term has weight 0.
    """

    discriminator: nn.Module | None

    def __init__(
        self,
        vae: GreyAutoencoder,
        head: nn.Linear,
        discriminator: nn.Module | None,
        settings: LabelVAESettings,
        distance: Distance,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.head = head
        self.discriminator = discriminator
        self.settings = settings
        self.distance = distance

    def forward(self, batch: AutoencoderBatch, update: str = AUTOENCODER) -> StepOutput:
        """Return the loss of one of the two networks."""
        if update == DISCRIMINATOR:
            return self._discriminator_loss(batch)
        images, settings = batch.crops.images, self.settings
        posterior = self.vae.encode(images)
        latents = posterior.sample(batch.noise)
        drawn = self.vae.decode(latents)
        fit_to_image = settings.reconstruction.weight * reconstruction_loss(drawn, images)
        if settings.perceptual.weight:
            fit_to_image = fit_to_image + settings.perceptual.weight * self.distance(drawn, images)
        kl = kl_loss(posterior.mean, posterior.logvar)
        loss = fit_to_image + settings.kl.weight * kl
        label = self._label_loss(latents, batch.crops.labels)
        metrics = {"image": fit_to_image.detach(), "kl": kl.detach(), "label": label.detach()}
        if self.training and settings.label.weight:
            weight = self._label_weight(fit_to_image, label)
            loss = loss + settings.label.weight * weight * label
            metrics["label_weight"] = torch.as_tensor(weight)
        if self.training and self.discriminator is not None and self._counts(batch.step):
            loss = loss + self._adversarial(fit_to_image, drawn, metrics)
        return StepOutput(loss, metrics | {"loss": loss.detach()})

    def _label_loss(self, latents: Tensor, labels: Tensor) -> Tensor:
        return prediction_loss(self.head(latents.flatten(1))[:, 0], labels, ~labels.isnan())

    def _label_weight(self, fit_to_image: Tensor, label: Tensor) -> Tensor | float:
        if not self.settings.label.adaptive:
            return 1.0
        last = self.vae.autoencoder.encoder.conv_out.weight
        return adaptive_weight(fit_to_image, label, last)

    def _counts(self, step: int) -> bool:
        return step >= self.settings.adversarial.start_step

    def _adversarial(
        self, fit_to_image: Tensor, drawn: Tensor, metrics: dict[str, Tensor]
    ) -> Tensor:
        adversarial = -self._judged(drawn).mean()
        last = self.vae.autoencoder.decoder.conv_out.weight
        weight = adaptive_weight(fit_to_image, adversarial, last)
        metrics |= {"adversarial": adversarial.detach(), "adversarial_weight": weight}
        return self.settings.adversarial.weight * weight * adversarial

    def _discriminator_loss(self, batch: AutoencoderBatch) -> StepOutput:
        with torch.no_grad():
            latents = self.vae.encode(batch.crops.images).sample(batch.noise)
            drawn = self.vae.decode(latents)
        loss = discriminator_loss(self._judged(batch.crops.images), self._judged(drawn))
        return StepOutput(float(self._counts(batch.step)) * loss, {"discriminator": loss.detach()})

    def _judged(self, images: Tensor) -> Tensor:
        if self.discriminator is None:
            raise RuntimeError("this autoencoder has no discriminator")
        return self.discriminator(images)


def run(context: StageContext) -> Iterator[Step]:
    """Train on train crops of both time points, keep the best by validation loss.

    Writes the VAE in diffusers' format and its scaling factor; head and discriminator are dropped.
    """
    settings, seed = context.settings.vae, context.settings.train_seed
    crops, held_out = (
        CropSet(read_split(context.cohort, split), context.settings.image, None)
        for split in ("train", "validation")
    )
    if crops.unhonoured:
        context.warn(crops.unhonoured)
    objective = _build(context).to(context.world.device)
    updates: tuple[Update, ...] = (Update(),)
    if objective.discriminator is not None:
        updates = (
            Update(AUTOENCODER, ("vae", "head")),
            Update(DISCRIMINATOR, ("discriminator",)),
        )
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(crops)),
        context.world,
        context.settings.precision,
        seed,
        updates=updates,
    )
    make = crop_batches(context, crops, objective.vae)

    def batches(number: int) -> AutoencoderBatch:
        return AutoencoderBatch(*make(number), step=number // len(updates))

    validate = _validator(context, objective, held_out)
    for step in fit(state, batches, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_vae(objective.vae, context.out, scaling_factor(context, objective.vae, crops))


def _build(context: StageContext) -> LabelledAutoencoder:
    settings, size = context.settings.vae, context.settings.image.size
    adversarial = settings.adversarial
    with initialised_from(NAME, context.settings.train_seed):
        vae = build_vae(settings.architecture)
        head = nn.Linear(vae.latent_channels * (size // vae.downsampling) ** 2, 1)
        discriminator = None
        if adversarial.weight:
            discriminator = build_discriminator(adversarial.channels, adversarial.num_layers)
    vae.to(memory_format=torch.channels_last)
    distance = distance_of(context, settings.perceptual.weight)
    return LabelledAutoencoder(vae, head, discriminator, settings, distance)


def _validator(
    context: StageContext, objective: LabelledAutoencoder, crops: CropSet
) -> Callable[[], dict[str, float]]:
    device, precision = context.world.device, context.settings.precision
    side = context.settings.image.size // objective.vae.downsampling
    shape = (objective.vae.latent_channels, side, side)

    def validate() -> dict[str, float]:
        sums: dict[str, float] = {}
        for start in range(0, len(crops), BATCH):
            index = np.arange(start, min(start + BATCH, len(crops)))
            noise = training_noise(0, NAME, start, len(index), shape, purpose="validation-noise")
            batch = AutoencoderBatch(crops.batch(index, device=device), noise.to(device), 0)
            with autocast(precision, device):
                output = objective(batch)
            for name, value in output.metrics.items():
                share = len(index) / len(crops)
                sums[name] = sums.get(name, 0.0) + float(value) * share
        return {f"validation_{name}": value for name, value in sums.items()}

    return validate
