"""Stage `language`: the embedded language model learns to carry a report in its EOS state.

Tokenizer and weights are trained on random reports and written in transformers' folder format,
which is where any other language model is read from. No cohort is read.
"""

import json
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, PreTrainedTokenizerBase

from namd.config.seeding import generator
from namd.data.records import RandomRecords
from namd.losses.gather import uneven_share
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.namd.language_probes import probe_states
from namd.models.embedded_language import (
    Rewriting,
    build_embedded,
    number_smoothing,
    rewriting,
    rewriting_logits,
    train_tokenizer,
)
from namd.models.initialisation import initialised_from
from namd.models.language import MODEL_FOLDER, without_progress_bars
from namd.models.language_settings import EmbeddedLanguageSettings, LanguageSettings
from namd.models.soft_prompt import ReportTokens
from namd.train.fit import fit
from namd.train.loop import TrainState
from namd.train.settings import TrainingSettings
from namd.train.world import share_of

NAME = "language"
TOKENIZER_REPORTS = 2000
PROBED_PROMPTS = (0, 8)
"""Numbers of fresh prompt vectors that the probes read behind."""


class RewritingObjective(nn.Module):
    """Cross-entropies, in nats: of each token written behind EOS, and of the words told, from EOS.

    The second is ours: it asks the state that is read, not only the keys and values below it,
    for every word of the report at once, which makes it linearly readable.
    """

    smoothed: Tensor

    def __init__(self, model: Gemma3ForCausalLM, targets: Tensor, words_weight: float) -> None:
        super().__init__()
        self.model = model
        self.words_weight = words_weight
        self.register_buffer("smoothed", targets, persistent=False)

    def forward(self, batch: Rewriting) -> StepOutput:
        """Return the loss, its terms and the share of tokens written right."""
        logits = rewriting_logits(self.model, batch)
        targets = self.smoothed[batch.targets]
        # Reports differ in length: a rank's mean over its tokens is weighed by how many it has.
        share = uneven_share(len(targets), logits.device)
        rewriting_loss = nn.functional.cross_entropy(logits, targets) * share
        starts, told = words_told(batch, targets)
        words_loss = nn.functional.cross_entropy(logits[starts], told)
        correct = (logits.argmax(1) == batch.targets).float().mean() * share
        metrics = {
            "rewriting_loss": rewriting_loss.detach(),
            "words_loss": words_loss.detach(),
            "accuracy": correct,
        }
        return StepOutput(rewriting_loss + self.words_weight * words_loss, metrics)


def words_told(
    batch: Rewriting, targets: Float[Tensor, "W V"]
) -> tuple[Int[Tensor, " B"], Float[Tensor, "B V"]]:
    """Return where each report's EOS stands among the written rows, and its mean target."""
    counts = batch.writes.sum(dim=1)
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    told = torch.zeros(len(counts), targets.shape[1], device=targets.device)
    told.index_add_(0, row, targets)
    return counts.cumsum(0) - counts, told / counts[:, None]


def run(context: StageContext) -> Iterator[Step]:
    """Train tokenizer and model; leave `model/` and `probes.json`."""
    settings: LanguageSettings = context.settings.language
    shape = settings.embedded
    tokenizer = train_tokenizer(_tokenizer_reports(settings.seed), shape.vocabulary_size)
    with initialised_from(NAME, settings.seed):
        model = build_embedded(shape, tokenizer)
    control = {name: value.clone() for name, value in model.state_dict().items()}
    objective = RewritingObjective(
        model, number_smoothing(tokenizer, shape.number_smoothing), shape.words_weight
    )
    objective.to(context.world.device)
    state = TrainState(
        NAME,
        objective,
        training_settings(shape),
        shape.num_steps,
        context.world,
        "fp32",
        settings.seed,
    )
    batches = report_batches(context, tokenizer)
    for step in fit(state, batches, None, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    if context.world.rank == 0:
        model = model.cpu().eval()
        with without_progress_bars():
            model.save_pretrained(context.out / MODEL_FOLDER)
            tokenizer.save_pretrained(context.out / MODEL_FOLDER)
        found = {"trained": _probes(model, tokenizer, settings)}
        model.load_state_dict(control)
        found["random"] = _probes(model, tokenizer, settings)
        (context.out / "probes.json").write_text(json.dumps(found, indent=1) + "\n")
        context.notes["probes"] = found


def training_settings(shape: EmbeddedLanguageSettings) -> TrainingSettings:
    """Return the training of the embedded model as the loop wants it."""
    return TrainingSettings(
        num_steps=shape.num_steps,
        batch_size=shape.batch_size,
        learning_rate=shape.learning_rate,
        betas=(0.9, 0.98),
        warmup_steps=min(shape.warmup_steps, shape.num_steps // 10),
        lr_schedule="cosine",
        min_learning_rate=shape.learning_rate / 10,
        max_norm=1.0,
        checkpoint_every=shape.checkpoint_every,
        keep="last",
    )


def report_batches(
    context: StageContext, tokenizer: PreTrainedTokenizerBase
) -> Callable[[int], Rewriting]:
    """Return this rank's part of each step's batch: fresh records, and prefixes before some.

    In every third step the reports stand right behind BOS; in the others up to `max_prefix`
    words of the vocabulary, each scaled by 0.5...1.5, stand where soft prompts will. One length
    a step, because padding is computed too.
    """
    settings: LanguageSettings = context.settings.language
    shape = settings.embedded
    part = share_of(shape.batch_size, context.world.rank, context.world.size)
    records, tokens = RandomRecords(), ReportTokens(tokenizer)
    first = 1 + max(tokenizer.all_special_ids)

    def batch(step: int) -> Rewriting:
        rng = generator("language-records", settings.seed, step)
        reports = [records.report(records.draw(rng), rng) for _ in range(shape.batch_size)]
        length = int(rng.integers(1 + shape.max_prefix)) if step % 3 else 0
        words = rng.integers(first, len(tokenizer), size=(len(reports), length)).tolist()
        scales = rng.uniform(0.5, 1.5, size=(len(reports), length)).tolist()
        rows = tokens.of(reports[part], remember=False)
        return rewriting(rows, words[part], scales[part], tokenizer).to(context.world.device)

    return batch


def _tokenizer_reports(seed: int) -> list[str]:
    rng, records = generator("language-tokenizer", seed), RandomRecords()
    return [records.report(records.draw(rng), rng) for _ in range(TOKENIZER_REPORTS)]


def _probes(
    model: Gemma3ForCausalLM, tokenizer: PreTrainedTokenizerBase, settings: LanguageSettings
) -> dict[str, dict[str, float]]:
    """Probe behind no prompts and behind fresh ones."""
    return {
        f"{count}_prompts": probe_states(
            model.model, tokenizer, settings.embedded.probe_records, settings.seed, count
        )
        for count in PROBED_PROMPTS
    }
