"""Is the latent space aligned with the nodule features, and does L_align do it?

For every VAE: Spearman's correlation, over pairs of test cases of different patients, between
their latent distance (z pooled over positions, and flattened) and their feature distance, and
between the former and the difference in diameter. Then aligned minus unaligned (weight 0), and
as a control sigma_f = 100 (uniform P) minus unaligned, averaged over training seeds, with
intervals that resample patients and seeds together.

    python -m experiments.alignment_check --cohort C --aligned A1 A2 A3 --unaligned B1 B2 B3
        --uniform U1 U2 U3 --json

Each folder is the payload of a `vae` artifact; the seeds stand in the same order everywhere.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from scipy.spatial.distance import pdist, squareform

from namd.config.places import local_path
from namd.config.seeding import generator
from namd.statistics.correlation import distance_spearman_interval
from namd.statistics.resampling import Estimate, cross, percentile_interval

MEASURES = ("pooled_features", "flat_features", "pooled_diameter", "flat_diameter")
PRIMARY = "pooled_features"
REQUIRED_DIFFERENCE = 0.10
BATCH = 64
Grid = dict[str, np.ndarray]


@dataclass(frozen=True)
class Alignment:
    """How well one VAE's latent distances follow the nodules'.

    Attributes:
        estimates: Spearman's correlation with its patient interval, by measure.
        replicates: Its bootstrap replicates, by measure; replicate b resamples the same patients
            for every VAE.
    """

    estimates: Mapping[str, Estimate]
    replicates: Mapping[str, Float[np.ndarray, " B"]]


def alignment_of(
    latents: Float[np.ndarray, "N C h w"],
    features: Float[np.ndarray, "N F"],
    diameters_mm: Float[np.ndarray, " N"],
    patient_ids: Shaped[np.ndarray, " N"],
    num_replicates: int = 500,
) -> Alignment:
    """Measure one VAE on cases whose features are complete.

    The patients' resamples depend on nothing but their number, so that two VAEs measured on the
    same cases can be compared replicate by replicate.
    """
    spaces = {"pooled": latents.mean((2, 3)), "flat": latents.reshape(len(latents), -1)}
    targets = {"features": features, "diameter": np.asarray(diameters_mm)[:, None]}
    estimates, replicates = {}, {}
    for measure in MEASURES:
        space, target = measure.split("_")
        estimates[measure], replicates[measure] = distance_spearman_interval(
            squareform(pdist(spaces[space])),
            squareform(pdist(targets[target])),
            patient_ids,
            generator("alignment-check", "patients"),
            num_replicates,
        )
    return Alignment(estimates, replicates)


def difference(
    ours: Sequence[Alignment], others: Sequence[Alignment], measure: str = PRIMARY
) -> Estimate:
    """Return the mean over training seeds of ours minus others, paired by seed and by patients.

    The interval resamples patients and seeds. With few seeds it is wide for that reason alone.

    Raises ValueError if the seeds cannot be paired.
    """
    if not ours or len(ours) != len(others):
        raise ValueError(f"seeds are paired one to one, got {len(ours)} and {len(others)}")
    pairs = list(zip(ours, others, strict=True))
    values = [a.estimates[measure].value - b.estimates[measure].value for a, b in pairs]
    replicates = np.stack([a.replicates[measure] - b.replicates[measure] for a, b in pairs])
    crossed = cross(replicates, generator("alignment-check", "seeds"))
    return percentile_interval(float(np.mean(values)), crossed)


def holds(estimate: Estimate) -> bool:
    """Whether a difference is large enough and its interval lies above 0."""
    return bool(estimate.value >= REQUIRED_DIFFERENCE and estimate.low > 0)


def report(arms: Mapping[str, Sequence[Alignment]]) -> dict[str, object]:
    """Return the JSON-able result: each arm by seed, each difference from `unaligned`."""
    differences = {
        f"{arm} - unaligned": {m: difference(found, arms["unaligned"], m) for m in MEASURES}
        for arm, found in arms.items()
        if arm != "unaligned" and found
    }
    return {
        "arms": {
            arm: [{m: a.estimates[m].to_mapping() for m in MEASURES} for a in found]
            for arm, found in arms.items()
        },
        "differences": {
            name: {m: estimate.to_mapping() for m, estimate in by_measure.items()}
            for name, by_measure in differences.items()
        },
        "holds": {name: holds(by_measure[PRIMARY]) for name, by_measure in differences.items()},
        "required_difference": REQUIRED_DIFFERENCE,
    }


def table(result: Mapping[str, object]) -> str:
    """Return the result as lines of text."""
    lines = [f"{'':28}" + "".join(f"{measure:>28}" for measure in MEASURES)]
    arms: Mapping[str, list[dict[str, dict[str, float]]]] = result["arms"]  # type: ignore[assignment]
    rows = [(f"{arm} [{i}]", row) for arm, found in arms.items() for i, row in enumerate(found)]
    differences: Mapping[str, dict[str, dict[str, float]]] = result["differences"]  # type: ignore[assignment]
    verdicts: Mapping[str, bool] = result["holds"]  # type: ignore[assignment]
    for name, row in [*rows, *differences.items()]:
        lines.append(f"{name:28}" + "".join(f"{_words(row[m]):>28}" for m in MEASURES))
    for name, verdict in verdicts.items():
        lines.append(
            f"{name}: {'at least' if verdict else 'NOT at least'} {REQUIRED_DIFFERENCE:.2f} "
            f"for {PRIMARY} with its interval above 0"
        )
    return "\n".join(lines) + "\n"


def read_cases(cohort: Path, split: str, vae_folder: Path, size: int, limit: int) -> Grid:
    """Return crops, features, diameters and patients of a split's complete cases."""
    from namd.data.cohort import Cohort
    from namd.data.features import NoduleFeatures
    from namd.data.intensity import to_unit
    from namd.data.rotation import rotated_crops
    from namd.data.splits import evaluation_subset

    cases = Cohort.read(cohort, [split])
    cases = cases.select(evaluation_subset(cases.table, split, limit, 0))
    mapping = json.loads((vae_folder / "features.json").read_text())
    features, complete = NoduleFeatures.from_mapping(mapping).transform(cases.table)
    chosen = np.flatnonzero(complete)
    return {
        "crops": to_unit(rotated_crops(cases.baseline[chosen], 0, size)),
        "features": features[chosen],
        "diameters_mm": cases.table["SCT_LONG_DIA"].to_numpy(float)[chosen],
        "patient_ids": cases.table["patient_id"].to_numpy(str)[chosen],
    }


def encode(folder: Path, crops: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "N C h w"]:
    """Return the posterior means of crops under a stored VAE."""
    import torch

    from namd.models.vae import load_vae

    vae, _ = load_vae(folder)
    with torch.no_grad():
        parts = [
            vae.encode(torch.from_numpy(crops[i : i + BATCH])[:, None]).mean.numpy()
            for i in range(0, len(crops), BATCH)
        ]
    return np.concatenate(parts)


def main(arguments: list[str] | None = None) -> int:
    """Compare stored VAEs; exit 1 where L_align did not do what it should."""
    options = _options(arguments)
    folders = {arm: getattr(options, arm) for arm in ("aligned", "unaligned", "uniform")}
    cases = read_cases(
        options.cohort, options.split, options.aligned[0], options.size, options.max_cases
    )
    measured = {
        arm: [
            alignment_of(
                encode(folder, cases["crops"]),
                cases["features"],
                cases["diameters_mm"],
                cases["patient_ids"],
                options.replicates,
            )
            for folder in found
        ]
        for arm, found in folders.items()
    }
    result = report(measured) | {"cases": len(cases["crops"]), "split": options.split}
    (sys.stderr if options.json else sys.stdout).write(table(result))
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    verdicts: Mapping[str, bool] = result["holds"]  # type: ignore[assignment]
    good = verdicts["aligned - unaligned"] and not verdicts.get("uniform - unaligned", False)
    return 0 if good else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cohort", type=local_path, required=True)
    parser.add_argument("--aligned", type=local_path, nargs="+", required=True)
    parser.add_argument("--unaligned", type=local_path, nargs="+", required=True)
    parser.add_argument("--uniform", type=local_path, nargs="*", default=[], help="sigma_f = 100")
    parser.add_argument("--split", default="test")
    parser.add_argument("--size", type=int, default=64, help="pixels per side")
    parser.add_argument("--max-cases", type=int, default=540)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    return parser.parse_args(arguments)


def _words(estimate: Mapping[str, float | None]) -> str:
    value, low, high = (
        float("nan") if estimate[name] is None else float(estimate[name] or 0.0)
        for name in ("value", "low", "high")
    )
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
