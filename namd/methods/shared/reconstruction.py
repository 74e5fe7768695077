"""Stage `reconstruction-<split>`: real follow-ups through the VAE and back, as a row of its own.

It bounds what any model in this latent space can show to the judge.
"""

from collections.abc import Iterator

import numpy as np
import torch

from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.evaluate.scores import save_scores
from namd.methods.base import StageContext, Step
from namd.methods.shared.draws import evaluation_cases
from namd.methods.shared.scores import make_scorer
from namd.models.vae import GreyAutoencoder, load_vae
from namd.train.loop import autocast

BATCH = 64


def run(context: StageContext) -> Iterator[Step]:
    """Encode (posterior mean) and decode the real follow-ups; score what comes back.

    Reads `vae` and `judge`; writes `scores.parquet` and `sets.json`. A case without a
    follow-up is scored as NaN.
    """
    cohort = evaluation_cases(context)
    followup = to_unit(centre_cut(np.asarray(cohort.followup), context.settings.image.size))
    vae, _ = load_vae(context.inputs["vae"])
    images = reconstructed(
        vae.to(context.world.device), followup, context.settings.precision, context.world.device
    )
    frame, sets = make_scorer(context, cohort).score(images)
    absent = ~np.asarray(cohort.has_followup)
    frame.loc[absent, ["score", "probability", "diameter_mm"]] = np.nan
    save_scores(context.out, frame, [sets])
    yield Step(1, 1, {"psnr": float(frame["psnr"].mean())})


@torch.no_grad()
def reconstructed(
    vae: GreyAutoencoder, images: np.ndarray, precision: str, device: str
) -> np.ndarray:
    """Return images (N, H, W) after encoding to the posterior mean and decoding, in [-1, 1]."""
    vae.eval()
    found = []
    for batch in torch.from_numpy(images)[:, None].split(BATCH):
        with autocast(precision, device):
            decoded = vae.decode(vae.encode(batch.to(device)).mean)
        found.append(decoded.float().clamp(-1, 1).cpu()[:, 0])
    return torch.cat(found).numpy()
