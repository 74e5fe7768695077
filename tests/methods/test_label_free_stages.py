"""Stages that read no label: perceptual encoder, and the language model's reports and probes."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM

from namd.methods.namd import language, language_probes
from namd.methods.namd.language import RewritingObjective, words_told
from namd.methods.namd.language_probes import NOT_TOLD, probe_states, told_code
from namd.methods.shared import perceptual
from namd.methods.shared.perceptual import RotationObjective
from namd.models.embedded_language import Rewriting, rewriting, train_tokenizer
from namd.models.perceptual import RotationEncoder, quarter_turned
from namd.train.world import LocalWorld
from tests.methods import made


class CornerEncoder(RotationEncoder):
    """Tells the quarter turn of a picture from where its bright corner lies."""

    def __init__(self, channels=()):
        nn.Module.__init__(self)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images):
        half = images.shape[-1] // 2
        corners = [
            images[..., :half, :half],
            images[..., half:, :half],
            images[..., half:, half:],
            images[..., :half, half:],
        ]
        return self.gain * 100 * torch.stack([c.amax((1, 2, 3)) for c in corners], 1)


def test_the_encoder_is_asked_for_the_turn_that_its_picture_was_given():
    picture = torch.zeros(1, 1, 8, 8)
    picture[..., 0, 0] = 1
    turns = torch.tensor([0, 1, 2, 3])
    batch = picture.expand(4, -1, -1, -1)
    seen = quarter_turned(batch, turns)
    assert [int(image.flatten().argmax()) for image in seen] == [0, 56, 63, 7]
    output = RotationObjective(CornerEncoder())((batch, turns))
    assert float(output.metrics["accuracy"]) == 1.0
    assert float(output.loss.detach()) < 1e-6
    wrong = RotationObjective(CornerEncoder())((batch.rot90(1, (2, 3)), turns))
    assert float(wrong.metrics["accuracy"]) == 0.0


def test_it_learns_turns_of_unturned_train_crops_of_both_time_points(monkeypatch, tmp_path):
    monkeypatch.setattr(perceptual, "RotationEncoder", CornerEncoder)
    monkeypatch.setattr(perceptual, "save_encoder", lambda _encoder, _folder: None)
    noted = made.noted_fit(monkeypatch, perceptual)
    sizes = ("perceptual.batch_size=6", "image.rotations=quarter")
    list(perceptual.run(made.context(tmp_path, *sizes)))
    train = [*made.SPLITS["train"], *(case + 0.5 for case in made.FOLLOWED["train"])]
    batches = [noted["batches"](step) for step in range(5)]
    assert sorted(case for images, _ in batches for case in made.which(images)) == sorted(train * 2)
    assert {int(turn) for _, turns in batches for turn in turns} == {0, 1, 2, 3}
    assert len({tuple(turns.tolist()) for _, turns in batches}) == 5
    corner = torch.cat([images for images, _ in batches])[:, 0, :4, :4]
    assert (corner.mean((1, 2)) > corner.mean() - 1).all()
    assert noted["validate"] is None


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(language._tokenizer_reports(0)[:200], 512)


def test_every_reports_state_is_asked_for_the_mean_of_its_words(tokenizer):
    end = tokenizer.eos_token_id
    reports = [[20, end], [21, 22, 22, end], [end]]
    batch = rewriting(reports, [[30], [31], [32]], [[1.0]] * 3, tokenizer)
    targets = torch.eye(len(tokenizer))[batch.targets]
    starts, found = words_told(batch, targets)
    assert starts.tolist() == [0, 2, 6]
    for row, report in zip(found, reports, strict=True):
        shares = {word: report.count(word) / len(report) for word in report}
        assert {int(word): float(row[word]) for word in row.nonzero()[:, 0]} == shares


def test_the_words_loss_enters_with_its_weight(monkeypatch, tokenizer):
    batch = rewriting([[20, tokenizer.eos_token_id]], [[]], [[]], tokenizer)
    logits = torch.zeros(2, len(tokenizer))
    logits[0, 20] = 2.0
    monkeypatch.setattr(language, "rewriting_logits", lambda _model, _batch: logits)
    model = object.__new__(Gemma3ForCausalLM)
    nn.Module.__init__(model)
    output = RewritingObjective(model, torch.eye(len(tokenizer)), 0.25)(batch)
    log = torch.log_softmax(logits, 1)
    end = tokenizer.eos_token_id
    rewriting_loss = -(log[0, 20] + log[1, end]) / 2
    words_loss = -(log[0, 20] + log[0, end]) / 2
    assert float(output.loss.detach()) == pytest.approx(float(rewriting_loss + 0.25 * words_loss))
    assert float(output.metrics["accuracy"]) == 0.5


def report_batches(monkeypatch, tmp_path, tokenizer, rank=0, size=1):
    """Each step's (rows, words, scales) of the stage's batches."""

    class Rows(Rewriting):
        def __init__(self, *parts):
            object.__setattr__(self, "parts", parts)

        def to(self, _device):
            return self

    monkeypatch.setattr(language, "rewriting", lambda *parts: Rows(*parts[:3]))
    context = made.context(
        tmp_path,
        "language.embedded.batch_size=4",
        "language.embedded.max_prefix=60",
        world=LocalWorld(rank, size),
    )
    batches = language.report_batches(context, tokenizer)
    return [batches(step).parts for step in range(30)]


def test_prefixes_stand_before_reports_in_two_of_three_steps(monkeypatch, tmp_path, tokenizer):
    steps = report_batches(monkeypatch, tmp_path, tokenizer)
    lengths = []
    for step, (rows, words, scales) in enumerate(steps):
        assert len(rows) == len(words) == len(scales) == 4
        (length,) = {len(row) for row in words}
        assert step % 3 or length == 0
        lengths.append(length)
        special = set(tokenizer.all_special_ids)
        assert not special & {word for row in words for word in row}
        assert all(0.5 <= scale <= 1.5 for row in scales for scale in row)
        assert all(row[-1] == tokenizer.eos_token_id for row in rows)
    assert max(lengths) <= 60
    assert len(set(lengths)) > 12
    texts = {tuple(row) for rows, _, _ in steps for row in rows}
    assert len(texts) > 115, "records are fresh in every step"


def test_ranks_hold_the_parts_of_one_global_batch(monkeypatch, tmp_path, tokenizer):
    whole = report_batches(monkeypatch, tmp_path, tokenizer)
    parts = [report_batches(monkeypatch, tmp_path, tokenizer, rank, 2) for rank in range(2)]
    for step, together in enumerate(whole):
        for kind in range(3):
            assert parts[0][step][kind] + parts[1][step][kind] == together[kind]


def test_probes_are_measured_on_records_that_they_were_not_fitted_on(monkeypatch, tokenizer):
    asked = {}

    def states(_context, reports):
        asked["reports"] = reports
        return np.random.default_rng(0).standard_normal((len(reports), 60))

    monkeypatch.setattr(language_probes, "SoftPromptContext", lambda *_a, **_k: None)
    monkeypatch.setattr(language_probes, "read_states", states)
    found = probe_states(nn.Identity(), tokenizer, 60, 0)
    assert len(asked["reports"]) == 120
    assert max(found["gender"], found["diagemph"]) < 0.6, "noise tells nothing"
    assert found["age"] < 0.3


def test_what_a_report_names_no_cohort_is_a_class_of_its_own():
    assert told_code({}, "gender") == NOT_TOLD
    assert told_code({"SCT_PRE_ATT": 7}, "SCT_PRE_ATT") == NOT_TOLD
    assert told_code({"SCT_PRE_ATT": 2}, "SCT_PRE_ATT") == 2
    assert told_code({"famfather": 1}, "family_history") == 1
    assert told_code({"famfather": 0}, "family_history") == NOT_TOLD
