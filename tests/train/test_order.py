import numpy as np
import pytest

from namd.train.order import CaseOrder
from namd.train.settings import TrainingSettings
from namd.train.world import share_of


@pytest.mark.parametrize(("cases", "batch"), [(10, 3), (10, 5), (3, 8), (1, 2)])
def test_every_case_is_seen_equally_often(cases: int, batch: int):
    order = CaseOrder("vae", 1, cases, batch)
    seen = np.concatenate([order.at(step) for step in range(cases)])
    assert np.array_equal(np.bincount(seen, minlength=cases), np.full(cases, batch))


def test_order_depends_on_seed_and_purpose_and_not_on_history():
    order = CaseOrder("vae", 1, 50, 8)
    later = order.at(9)
    order.at(0)
    assert np.array_equal(order.at(9), later)
    assert not np.array_equal(CaseOrder("vae", 2, 50, 8).at(9), later)
    assert not np.array_equal(CaseOrder("pretrain", 1, 50, 8).at(9), later)


def test_ranks_share_a_global_batch_without_gap_or_overlap():
    rows = np.arange(12)
    parts = [rows[share_of(12, rank, 3)] for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), rows)
    with pytest.raises(ValueError, match="12 cannot be shared by 5"):
        share_of(12, 0, 5)


def test_warm_up_and_cosine_meet_their_ends():
    settings = TrainingSettings(
        learning_rate=1e-4,
        start_learning_rate=1e-6,
        warmup_steps=4000,
        lr_schedule="cosine",
        min_learning_rate=1e-5,
    )
    assert settings.rate_at(0, 100_000) == pytest.approx(1e-6)
    assert settings.rate_at(4000, 100_000) == pytest.approx(1e-4)
    assert settings.rate_at(100_000, 100_000) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0.0}, {"batch_size": 0}, {"max_norm": -1.0}, {"ema_decay": 1.0}]
)
def test_impossible_settings_are_refused_with_their_value(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        TrainingSettings(**wrong)


def test_an_empty_training_set_is_refused():
    with pytest.raises(ValueError, match="vae: no cases"):
        CaseOrder("vae", 0, 0, 4)
