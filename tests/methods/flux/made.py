"""32 pairs whose change is the age of the record, a stage's context on hand-made crops."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from namd.data.schema import EHR_FEATURES
from namd.methods.base import StageContext
from namd.methods.flux import drawing, training
from namd.methods.flux.objective import FlowBatches, RectifiedFlow
from namd.methods.flux.record import RecordScale, RecordTokens
from namd.methods.flux.settings import FluxArchitecture, FluxSettings, RecordSettings
from namd.methods.flux.transformer import build_transformer
from namd.methods.shared import latents as latents_stage
from namd.methods.shared.latents import PairedLatents
from namd.models.initialisation import initialised_from
from namd.train.world import LocalWorld
from tests.methods import made

COUNT = 32
SCALE = 2.0
SMALL = FluxArchitecture(
    num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=16, record_width=16
)
STAGE = "flux_transformer"


def table() -> pd.DataFrame:
    """Records that differ in their age alone."""
    rows = pd.DataFrame({name: np.full(COUNT, np.nan) for name in EHR_FEATURES})
    return rows.assign(age=np.linspace(40, 71, COUNT))


def pairs(angles: int = 1) -> PairedLatents:
    """Baselines of white noise; the follow-up is half of it, and lighter the older the patient."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.standard_normal((angles, COUNT, 4, 4, 4), dtype=np.float32))
    change = torch.linspace(-1.5, 1.5, COUNT)[None, :, None, None, None]
    small = torch.full_like(before, -12.0)
    return PairedLatents(
        {
            "baseline_mean": before,
            "baseline_logvar": small,
            "followup_mean": 0.5 * before + change,
            "followup_logvar": small,
        },
        np.arange(COUNT).astype(str),
    )


def batches(
    world: LocalWorld | None = None, *, angles: int = 1, dropout: float = 0.0, **values: object
) -> FlowBatches:
    settings = FluxSettings(
        architecture=SMALL, record=RecordSettings(dropout=dropout), batch_size=COUNT, **values
    )
    records = RecordScale.fit(table(), EHR_FEATURES).numbers(table())
    return FlowBatches(settings, 0, pairs(angles), records, world or LocalWorld())


def flow() -> RectifiedFlow:
    with initialised_from("test", 1):
        return RectifiedFlow(build_transformer(SMALL, 4, False), RecordTokens(16, 16), None)


def encoded(monkeypatch, folder: Path, *overrides: str) -> dict[str, Path]:
    """The inputs of the stage: hand-made crops under an autoencoder that folds pixels."""
    for module in (latents_stage, training, drawing):
        monkeypatch.setattr(module, "load_vae", lambda _folder: (made.FoldingVAE(), SCALE))
    (folder / "latents").mkdir(parents=True)
    context = made.context(folder / "latents", "method=flux", *overrides)
    list(latents_stage.run(context))
    return {"vae": folder, "latents": folder / "latents" / "out"}


def context(folder: Path, inputs: dict[str, Path], *overrides: str) -> StageContext:
    """The context of the training, or of the draws if `flux_transformer` is among the inputs."""
    folder.mkdir(exist_ok=True)
    values = (
        "flux.num_steps=4",
        "flux.checkpoint_every=2",
        "flux.validate_every=2",
        "flux.batch_size=6",
        "vae.architecture.pixel_unshuffle=1",
    )
    return made.context(folder, "method=flux", *values, *overrides, inputs=inputs)


def trained(folder: Path, inputs: dict[str, Path], *overrides: str, until: int | None = None):
    """Run the stage to its end, or stop it behind a checkpoint; returns its artifact's folder."""
    own = context(folder, inputs, *overrides)
    body = training.run(own)
    for step in body:
        if step.index == until:
            # The checkpoint of a step is written when the body is asked for more.
            next(body)
            body.close()
            break
    return own.out


def overfitted(steps: int) -> SimpleNamespace:
    """A flow trained on the 32 pairs."""
    objective, source = flow(), batches()
    optimiser = torch.optim.AdamW(objective.parameters(), lr=6e-3)
    first = error(objective, source)
    for step in range(steps):
        optimiser.zero_grad()
        objective(source.at(step)).loss.backward()
        optimiser.step()
    return SimpleNamespace(objective=objective.eval(), source=source, first=first)


@torch.no_grad()
def error(objective: RectifiedFlow, source: FlowBatches) -> float:
    """The validation error of a flow."""
    objective.eval()
    found = float(np.mean([float(objective(batch).loss) for batch in source.validation()]))
    objective.train()
    return found
