"""The full evaluation path (K draws of every case, decoded and judged) against the naive loop.

The naive loop is what a first script does: for each case and each draw, batch 1, it reads the
report through the language model, encodes the baseline, takes diffusers' UNet2DConditionModel
through diffusers' DDIMScheduler and decodes with diffusers' AutoencoderKL. Both start from the
same noise and must give the same images. Networks have a preset's shapes and random weights, so
no store and no Ray is needed. The naive loop is measured on some (case, draw) pairs and scaled to
all of them, which its cost per pair allows: it shares nothing between pairs.

    python -m experiments.benchmarks.sampling --preset base --cases 64 --draws 20 --json
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from namd.config.parsing import parse
from namd.config.seeding import generator
from namd.data.report import report_text
from namd.diffusion.conditioning import condition_on_latents
from namd.diffusion.ddim import ddim_sample, inference_timesteps
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import diffusers_scheduler, noise_schedule
from namd.methods.namd.method import METHOD
from namd.methods.namd.settings import NAMDConfig
from namd.models.embedded_language import build_embedded, train_tokenizer
from namd.models.initialisation import initialised_from
from namd.models.judge import Judge
from namd.models.soft_prompt import SoftPromptContext
from namd.models.unet import build_unet
from namd.models.vae import GreyAutoencoder, build_vae
from namd.sample.denoiser import PreparedUNet
from namd.sample.draws import map_batches
from namd.train.loop import autocast

PURPOSE = "benchmark-sampling"
TOLERANCE = 1e-4
MATMUL_SIDE = 1536
Result = TypeVar("Result")
MULTIPLIES = ("mm", "addmm", "bmm", "baddbmm", "convolution", "scaled_dot_product")


@dataclass(frozen=True)
class Work:
    """What is drawn: networks, cases and sizes."""

    config: NAMDConfig
    vae: GreyAutoencoder
    unet: UNet2DConditionModel
    reader: SoftPromptContext
    judge: Judge
    scale: float
    images: Tensor
    reports: list[str]
    device: str
    precision: str
    batch_size: int


def build_work(config: NAMDConfig, num_cases: int, options: argparse.Namespace) -> Work:
    """Return networks of the configured shapes with random weights, and random cases."""
    records = [_record(case) for case in range(num_cases)]
    reports = [report_text(record) for record in records]
    channels, size = config.vae.architecture.latent_channels, config.image.size
    with initialised_from(PURPOSE, 0):
        tokenizer = train_tokenizer(reports, config.language.embedded.vocabulary_size)
        language = build_embedded(config.language.embedded, tokenizer).model
        soft_prompt = config.finetune.soft_prompt
        reader = SoftPromptContext(language, tokenizer, soft_prompt, seed=0)
        vae = build_vae(config.vae.architecture)
        unet = build_unet(config.unet, channels, channels, reader.width, size // vae.downsampling)
        condition_on_latents(unet, channels)
        # Trained weights would not be zero here, and neither may the baseline's part be.
        nn.init.normal_(unet.conv_in.weight, std=unet.conv_in.weight.shape[1] ** -0.5 / 3)
        judge = Judge(replace(config.judge.architecture, image_size=size))
    for module in (vae, unet, reader, judge):
        module.requires_grad_(False).eval().to(options.device)
    images = generator(PURPOSE, "images").uniform(-1, 1, (num_cases, 1, size, size))
    return Work(
        config=config,
        vae=vae,
        unet=unet,
        reader=reader,
        judge=judge,
        scale=1.0,
        images=torch.from_numpy(images).float().to(options.device),
        reports=reports,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
    )


@torch.no_grad()
def draw_naively(work: Work, case: int, index: int) -> Tensor:
    """Return one draw of one case, with nothing kept from any other."""
    scheduler = diffusers_scheduler(work.config.noise_schedule)
    scheduler.set_timesteps(work.config.draws.ddim.num_inference_steps)
    with autocast(work.precision, work.device):
        states = work.reader([work.reports[case]])
        condition = work.vae.encode(work.images[case : case + 1]).mean * work.scale
        latents = _noise(work, [case], index, condition.shape[1:])
        for timestep in scheduler.timesteps:
            joined = torch.cat([latents, condition], 1)
            predicted = work.unet(joined, timestep, encoder_hidden_states=states).sample
            latents = scheduler.step(predicted.float(), timestep, latents).prev_sample
        image = work.vae.decode(latents / work.scale).float().clamp(-1, 1)
        work.judge.probability(image)
    return image


@torch.no_grad()
def draw_batched(work: Work, num_draws: int) -> tuple[Tensor, Tensor]:
    """Return all draws (K, N, 1, H, W) and their scores (K, N), as the stages compute them."""
    ddim, settings = work.config.draws.ddim, work.config.noise_schedule
    schedule = noise_schedule(settings)
    count = len(work.images)
    with autocast(work.precision, work.device):
        steps = inference_timesteps(settings, ddim.num_inference_steps)
        prepared = PreparedUNet(work.unet, steps, work.precision)
        parts = [slice(i, i + work.batch_size) for i in range(0, count, work.batch_size)]
        states = torch.cat([work.reader(work.reports[part]) for part in parts])
        condition = torch.cat([work.vae.encode(work.images[p]).mean for p in parts]) * work.scale
        pairs = [(index, part) for index in range(num_draws) for part in parts]

    def one(pair: tuple[int, slice]) -> tuple[Tensor, Tensor]:
        index, part = pair
        with autocast(work.precision, work.device):
            predict = prepared.bind(condition[part], states[part])
            noise = _noise(work, list(range(count))[part], index, condition.shape[1:])
            latents = ddim_sample(predict, noise, schedule, ddim)
            images = work.vae.decode(latents / work.scale).float().clamp(-1, 1)
            return images, work.judge.probability(images).float()

    drawn, scores = zip(*map_batches(one, pairs, work.device), strict=True)
    shape = (num_draws, count)
    return torch.cat(drawn).view(*shape, *drawn[0].shape[1:]), torch.cat(scores).view(shape)


@dataclass(frozen=True)
class Peak:
    """What this machine reached, GFLOP/s, in the precision of the draws."""

    matmul: float
    convolution: float

    @property
    def best(self) -> float:
        """The higher of the two, so that a share of it flatters neither."""
        return max(self.matmul, self.convolution)


@torch.no_grad()
def measure_peak(work: Work) -> Peak:
    """Time a large matrix product and a wide 3 x 3 convolution."""
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    square = torch.ones(MATMUL_SIDE, MATMUL_SIDE, dtype=dtype, device=work.device)
    convolution = nn.Conv2d(128, 128, 3, padding=1).to(work.device, dtype)
    convolution = convolution.to(memory_format=torch.channels_last)
    images = torch.ones(64, 128, 16, 16, dtype=dtype, device=work.device)
    images = images.to(memory_format=torch.channels_last)
    product_flops = 2 * MATMUL_SIDE**3
    convolution_flops = 2 * 9 * 128 * 128 * 256 * 64
    return Peak(
        product_flops / _best_time(work, lambda: square @ square, 8) / 1e9,
        convolution_flops / _best_time(work, lambda: convolution(images), 8) / 1e9,
    )


@torch.no_grad()
def measure_step(work: Work) -> dict[str, float]:
    """Return one batched U-Net evaluation: seconds, FLOPs, and the share spent multiplying."""
    cases = slice(0, work.batch_size)
    with autocast(work.precision, work.device):
        states = work.reader(work.reports[cases])
        condition = work.vae.encode(work.images[cases]).mean
        timestep = 1
        predict = PreparedUNet(work.unet, [timestep], work.precision).bind(condition, states)
        latents = _noise(work, list(range(len(condition))), 0, condition.shape[1:])
        seconds = _best_time(work, lambda: predict(latents, timestep), 5)
        with FlopCounterMode(display=False) as counter:
            predict(latents, timestep)
        with FlopCounterMode(display=False) as plain:
            joined = torch.cat([latents, condition], 1)
            work.unet(joined, timestep, encoder_hidden_states=states)
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if work.device.startswith("cuda") else []
        with profile(activities=activities) as profiler:
            for _ in range(3):
                predict(latents, timestep)
    return {
        "step_seconds": seconds,
        "step_gflop": counter.get_total_flops() / 1e9,
        "step_gflop_diffusers": plain.get_total_flops() / 1e9,
        "share_in_products": _share_in_products(profiler, work.device),
    }


def compare(work: Work, num_draws: int, naive_pairs: int) -> dict[str, object]:
    """Time both ways, hold their images together, and say what bounds the faster one."""
    pairs = _spread_pairs(len(work.images), num_draws, naive_pairs)
    draw_naively(work, *pairs[0])
    draw_batched(replace(work, images=work.images[:2], reports=work.reports[:2]), 1)
    naive_spent, naive = _timed(work, lambda: [draw_naively(work, *pair) for pair in pairs])
    spent, (drawn, scores) = _timed(work, lambda: draw_batched(work, num_draws))
    total = len(work.images) * num_draws
    naive_images = torch.cat(naive)
    ours = torch.stack([drawn[index, case] for case, index in pairs])
    difference = (naive_images - ours).abs()
    with torch.no_grad(), autocast(work.precision, work.device):
        naive_scores = work.judge.probability(naive_images).float().cpu().numpy()
    paired_scores = np.array([float(scores[index, case]) for case, index in pairs])
    labels = generator(PURPOSE, "labels").permutation(np.arange(len(pairs)) % 2).astype(bool)
    peak, step = measure_peak(work), measure_step(work)
    achieved = step["step_gflop"] / step["step_seconds"]
    return {
        "draws_in_all": total,
        "naive_pairs_measured": len(pairs),
        "naive_seconds_per_draw": naive_spent.wall / len(pairs),
        "batched_seconds_per_draw": spent.wall / total,
        "naive_seconds_scaled": naive_spent.wall / len(pairs) * total,
        "batched_seconds": spent.wall,
        "ratio": naive_spent.wall / len(pairs) / (spent.wall / total),
        "ratio_of_processor_time": naive_spent.processor / len(pairs) / (spent.processor / total),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "auroc_naive": _auroc(naive_scores, labels),
        "auroc_batched": _auroc(paired_scores, labels),
        "peak_gflops": {**asdict(peak)},
        "step_gflops": achieved,
        "step_share_of_peak": achieved / peak.best,
        **step,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; exit 1 where the images differ."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    config = _configuration(options.preset, options.steps)
    work = build_work(config, options.cases, options)
    result = {
        "preset": options.preset,
        "device": _device_name(options.device),
        "threads": options.threads,
        "precision": options.precision,
        "cases": options.cases,
        "draws": options.draws,
        "ddim_steps": config.draws.ddim.num_inference_steps,
        "batch_size": options.batch_size,
        "unet_parameters": sum(p.numel() for p in work.unet.parameters()),
        **compare(work, options.draws, options.naive_pairs),
    }
    same = options.precision == "bf16" or float(str(result["max_difference"])) <= TOLERANCE
    result["same_images"] = same
    _show(result, sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))
    return 0 if same else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--cases", type=int, default=128)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--steps", type=int, default=0, help="DDIM steps; 0: the preset's")
    parser.add_argument("--naive-pairs", type=int, default=24, help="measured naively, then scaled")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    return parser.parse_args(arguments)


def _configuration(preset: str, steps: int) -> NAMDConfig:
    """Return a preset's configuration.

    Raises SystemExit for a preset whose shapes lie in external weights.
    """
    config = parse(NAMDConfig, METHOD.preset(preset))
    external = (config.unet.weights, config.vae.architecture.weights)
    if any(external) or not config.language.is_embedded:
        sys.stderr.write(f"preset {preset} takes its shapes from external weights; try base\n")
        raise SystemExit(2)
    if steps:
        ddim = replace(config.draws.ddim, num_inference_steps=steps)
        config = replace(config, draws=replace(config.draws, ddim=ddim))
    return config


def _record(case: int) -> dict[str, float]:
    rng = generator(PURPOSE, "record", case)
    return {
        "age": float(rng.integers(55, 76)),
        "gender": float(rng.integers(1, 3)),
        "diagemph": float(rng.integers(0, 2)),
        "SCT_LONG_DIA": float(rng.integers(4, 23)),
        "SCT_PRE_ATT": float(rng.integers(1, 4)),
        "SCT_EPI_LOC": float(rng.integers(1, 7)),
        "SCT_MARGINS": float(rng.integers(1, 4)),
    }


def _noise(work: Work, cases: list[int], index: int, shape: torch.Size) -> Tensor:
    return draw_noise(0, cases, index, tuple(shape)).to(work.device)


def _spread_pairs(num_cases: int, num_draws: int, count: int) -> list[tuple[int, int]]:
    flat = np.linspace(0, num_cases * num_draws - 1, min(count, num_cases * num_draws))
    return [(int(i) % num_cases, int(i) // num_cases) for i in flat.astype(int)]


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of processor time over all threads."""

    wall: float
    processor: float


def _timed(work: Work, call: Callable[[], Result]) -> tuple[Spent, Result]:
    _wait(work)
    start, processor_start = time.perf_counter(), time.process_time()
    result = call()
    _wait(work)
    return Spent(time.perf_counter() - start, time.process_time() - processor_start), result


def _best_time(work: Work, call: Callable[[], object], repeats: int) -> float:
    call()
    return min(_timed(work, call)[0].wall for _ in range(repeats))


def _wait(work: Work) -> None:
    if work.device.startswith("cuda"):
        torch.cuda.synchronize()


def _share_in_products(profiler: profile, device: str) -> float:
    spent = "self_device_time_total" if device.startswith("cuda") else "self_cpu_time_total"
    times = {event.key: getattr(event, spent) for event in profiler.key_averages()}
    products = sum(value for name, value in times.items() if any(m in name for m in MULTIPLIES))
    return products / max(sum(times.values()), 1e-9)


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUROC; the labels are arbitrary, and equal for both ways."""
    count = int(positive.sum())
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / max(count * (len(positive) - count), 1))


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def _show(result: Mapping[str, object], stream: object) -> None:
    r = dict(result)
    lines = [
        "{cases} cases x {draws} draws, {ddim_steps} DDIM steps, {precision}, {device}, "
        "{threads} threads, U-Net {unet_parameters:,} parameters",
        "naive loop   {naive_seconds_per_draw:.4f} s a draw, measured on {naive_pairs_measured} "
        "draws; all {draws_in_all} would take {naive_seconds_scaled:.0f} s (scaled)",
        "this library {batched_seconds_per_draw:.4f} s a draw, all {draws_in_all} in "
        "{batched_seconds:.1f} s (measured)",
        "ratio        {ratio:.1f}x on the clock, {ratio_of_processor_time:.1f}x in processor time "
        "(the fairer number on a shared machine)",
        "images       differ by at most {max_difference:.2e}, on average {mean_difference:.2e}; "
        "AUROC of arbitrary labels {auroc_naive:.4f} and {auroc_batched:.4f}",
        "U-Net step   {step_gflops:.0f} GFLOP/s, {step_share_of_peak:.0%} of the best measured "
        "here (matmul {peak_gflops[matmul]:.0f}, conv {peak_gflops[convolution]:.0f}); "
        "{share_in_products:.0%} of its time in matrix products and convolutions; "
        "{step_gflop:.2f} GFLOP a batch, diffusers' takes {step_gflop_diffusers:.2f}",
    ]
    for line in lines:
        print(line.format(**r), file=stream)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
