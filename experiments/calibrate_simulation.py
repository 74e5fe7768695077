"""Measure whether a simulated cohort separates methods, on seeds that are never reported.

    python experiments/calibrate_simulation.py --phantom --seeds 101 102
    python experiments/calibrate_simulation.py --cohort FOLDER --law nlst
    python experiments/calibrate_simulation.py --phantom --law marked sober --no-judge

First what the law's truth rests on: the record's share of the logit, odds ratios, AUROCs of the
sign, of the diameter and of p, all over every case. Then, unless `--no-judge`, a small
convolutional judge is trained on both time points of the train split, stopped by the validation
split, and scores test baselines, test follow-ups and the ideal sampler's redraws. A cohort that is
to separate methods has the real baseline at 0.62-0.74, the real follow-up at least 0.10 above it,
and the mean of 20 ideal draws at least 0.05 above it. This judge is not the project's: it is quick,
and it must not be tuned together with it.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from namd.config.places import local_path
from namd.config.seeding import derive_seed, generator
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.simulation.figures import TruthFigures, truth_figures
from namd.data.simulation.ideal import redraw
from namd.data.simulation.known import SIMULATED
from namd.data.simulation.settings import Law, SimulationSettings
from namd.data.simulation.simulate import simulate
from namd.data.sources.phantom import PhantomSettings, build
from namd.data.splits import evaluation_subset
from namd.statistics.ranking import auroc

IMAGE_PX = 64
USUAL_FUTURES = 4
SMALLEST_MM, LARGEST_MM = 4.0, 22.0


@dataclass(frozen=True)
class JudgeSettings:
    """How the quick judge is trained; epochs count a cohort of four futures a nodule."""

    epochs: int = 8
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    width: int = 16


@dataclass(frozen=True)
class Figures:
    """What one law and cohort seed give; AUROCs on the test subset, `ideal_predictor` on it too.

    What a judge reads is None where none was trained.
    """

    law: str
    seed: int
    test_cases: int
    test_malignant: int
    subset_cases: int
    ideal_predictor: float
    seconds: float
    truth: TruthFigures
    real_baseline: float | None = None
    real_followup: float | None = None
    ideal_draw: float | None = None
    ideal_mean: float | None = None


JUDGED = ("real_baseline", "real_followup", "ideal_draw", "ideal_mean", "ideal_predictor")


def main() -> None:
    """Print one line of JSON per law and seed, and the means of each law."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.phantom:
        source = build(PhantomSettings(), seed=arguments.seeds[0])
    else:
        source = baselines(Cohort.read(arguments.cohort))
    for law in arguments.law:
        settings = _settings(law, arguments)
        rows = []
        for seed in arguments.seeds:
            rows.append(measure(source, settings, seed, arguments.cases, judged=arguments.judge))
            sys.stdout.write(json.dumps(asdict(rows[-1])) + "\n")
            sys.stdout.flush()
        found = {name: [getattr(row, name) for row in rows] for name in JUDGED}
        means = {n: round(float(np.mean(v)), 4) for n, v in found.items() if None not in v}
        sys.stdout.write(json.dumps({"law": law, "mean": means}) + "\n")


def _settings(law: Law, arguments: argparse.Namespace) -> SimulationSettings:
    settings = SimulationSettings.for_law(law, arguments.replicates, rendered=arguments.phantom)
    for name in ("image_factor", "record_factor"):
        if getattr(arguments, name) is not None:
            settings = replace(settings, **{name: getattr(arguments, name)})
    if arguments.sign_strength is not None:
        signs = replace(settings.signs, strength=arguments.sign_strength)
        settings = replace(settings, signs=signs)
    return settings


def baselines(cohort: Cohort) -> Cohort:
    """The nodules under a cohort: one row each, of a size that is simulated, with a mask."""
    table = cohort.table
    keep = table["SCT_LONG_DIA"].between(SMALLEST_MM, LARGEST_MM).to_numpy(copy=True)
    keep &= cohort.stacks["mask"].any(axis=(1, 2))
    if "sim_replicate" in table:
        keep &= (table["sim_replicate"] == 0).to_numpy()
    return cohort.select(keep)


def measure(
    source: Cohort,
    settings: SimulationSettings,
    seed: int,
    num_cases: int,
    num_draws: int = 20,
    *,
    judged: bool = True,
) -> Figures:
    """Simulate under a seed; if `judged`, train the judge and score the untrained rows."""
    started = time.perf_counter()
    cohort = simulate(source, settings, seed, replace=SIMULATED)
    label = cohort.table["label"].to_numpy(dtype=int)
    test = evaluation_subset(cohort.table, "test")
    rows = evaluation_subset(cohort.table, "test", num_cases)
    seen = _judged(cohort, settings, seed, rows, num_draws) if judged else {}
    return Figures(
        law=settings.law,
        seed=seed,
        test_cases=len(test),
        test_malignant=int(label[test].sum()),
        subset_cases=len(rows),
        ideal_predictor=auroc(label[rows], cohort.table["sim_p"].to_numpy()[rows]),
        seconds=round(time.perf_counter() - started, 1),
        truth=truth_figures(cohort),
        **seen,
    )


def _judged(
    cohort: Cohort,
    settings: SimulationSettings,
    seed: int,
    rows: NDArray[np.intp],
    num_draws: int,
) -> dict[str, float]:
    """Return what a judge reads from baselines, follow-ups and redraws of some cases.

    It takes about as many steps however many futures a nodule has.
    """
    usual = JudgeSettings()
    epochs = round(usual.epochs * USUAL_FUTURES / settings.replicates)
    judge = train_judge(cohort, replace(usual, epochs=epochs), seed)
    label = cohort.table["label"].to_numpy(dtype=int)[rows]
    draws = np.stack([score(judge, redraw(cohort, rows, seed, k)) for k in range(num_draws)])
    return {
        "real_baseline": auroc(label, score(judge, cohort.baseline[rows])),
        "real_followup": auroc(label, score(judge, cohort.stacks["followup"][rows])),
        "ideal_draw": float(np.mean([auroc(label, draw) for draw in draws])),
        "ideal_mean": auroc(label, draws.mean(axis=0)),
    }


def train_judge(cohort: Cohort, settings: JudgeSettings, seed: int) -> nn.Module:
    """Train on both time points of the train split; keep the epoch best on validation."""
    images, labels = _both_times(cohort, "train")
    held_images, held_labels = _both_times(cohort, "validation")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive_seed("calibration-judge", seed) % 2**63)
        judge = build_judge(settings.width)
    steps = settings.epochs * (len(labels) // settings.batch)
    optimiser = torch.optim.AdamW(
        judge.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=steps
    )
    best, kept = -1.0, {k: v.clone() for k, v in judge.state_dict().items()}
    for epoch in range(settings.epochs):
        rng = generator("calibration-order", seed, epoch)
        order = rng.permutation(len(labels))
        judge.train()
        for start in range(0, len(order) - settings.batch + 1, settings.batch):
            chosen = order[start : start + settings.batch]
            batch = torch.from_numpy(_turned(images[chosen], rng))[:, None]
            target = torch.from_numpy(labels[chosen])
            loss = nn.functional.binary_cross_entropy_with_logits(judge(batch)[:, 0], target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
        reached = auroc(held_labels.astype(int), _logits(judge, held_images))
        if reached > best:
            best, kept = reached, {k: v.clone() for k, v in judge.state_dict().items()}
    judge.load_state_dict(kept)
    return judge.eval()


def build_judge(width: int) -> nn.Module:
    """Five strided convolutions and a mean: about 0.1 M parameters at width 16."""
    layers: list[nn.Module] = []
    before = 1
    for after in (width, 2 * width, 3 * width, 4 * width):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.SiLU()]
        before = after
    layers += [nn.Conv2d(before, before, 3, 1, 1), nn.BatchNorm2d(before), nn.SiLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(before, 1)]
    return nn.Sequential(*layers)


def score(judge: nn.Module, images: NDArray[np.int16]) -> NDArray[np.float64]:
    """Probability of malignancy of HU crops."""
    logits = _logits(judge, _prepared(images)).astype(float)
    return 1.0 / (1.0 + np.exp(-logits))


def _logits(judge: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    judge.eval()
    with torch.inference_mode():
        parts = [judge(torch.from_numpy(part)[:, None])[:, 0] for part in _chunks(images)]
    return torch.cat(parts).numpy()


def _chunks(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [images[start : start + 256] for start in range(0, len(images), 256)]


def _both_times(cohort: Cohort, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = np.flatnonzero((cohort.table["split"] == split).to_numpy())
    label = cohort.table["label"].to_numpy(dtype=np.float32)[rows]
    both = np.concatenate([cohort.baseline[rows], cohort.stacks["followup"][rows]])
    return _prepared(both), np.concatenate([label, label])


def _prepared(images: NDArray[np.int16]) -> NDArray[np.float32]:
    edge = (images.shape[-1] - IMAGE_PX) // 2
    middle = slice(edge, edge + IMAGE_PX)
    return np.ascontiguousarray(to_unit(images[:, middle, middle]), dtype=np.float32)


def _turned(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    turned = np.rot90(images, int(rng.integers(4)), axes=(1, 2))
    return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--phantom", action="store_true", help="draw the phantom cohort")
    source.add_argument("--cohort", type=local_path, help="a cohort folder; its baselines are used")
    parser.add_argument("--law", choices=get_args(Law), nargs="+", default=["marked"])
    parser.add_argument("--no-judge", dest="judge", action="store_false", help="train nothing")
    parser.add_argument("--replicates", type=int)
    parser.add_argument("--image-factor", type=float)
    parser.add_argument("--record-factor", type=float)
    parser.add_argument("--sign-strength", type=float)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102])
    parser.add_argument("--cases", type=int, default=700, help="test cases that are redrawn")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
