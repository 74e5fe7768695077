import pytest
import torch

from namd.losses.total import LossTerm, StepOutput, weighted_sum


def never():
    raise AssertionError("a term of weight 0 was computed")


def test_terms_are_weighted_summed_and_logged_unweighted():
    x = torch.tensor(2.0, requires_grad=True)
    step = weighted_sum(
        [LossTerm("rec", 1.0, lambda: x), LossTerm("align", 0.5, lambda: x**2)],
    )
    step.loss.backward()
    assert step.loss.item() == 4
    assert x.grad.item() == 3
    assert {k: v.item() for k, v in step.metrics.items()} == {"loss": 4, "rec": 2, "align": 4}
    assert not any(value.requires_grad for value in step.metrics.values())


def test_weight_zero_is_neither_computed_nor_logged_and_a_small_one_is():
    one = LossTerm("rec", 1.0, lambda: torch.tensor(1.0))
    assert set(weighted_sum([one, LossTerm("align", 0.0, never)]).metrics) == {"loss", "rec"}
    with pytest.raises(AssertionError, match="weight 0"):
        weighted_sum([one, LossTerm("align", 1e-9, never)])


def test_a_term_may_log_more():
    metric = torch.tensor(7.0)
    step = weighted_sum(
        [LossTerm("align", 2.0, lambda: StepOutput(torch.tensor(1.0), {"perplexity_p": metric}))]
    )
    assert step.loss.item() == 2
    assert {k: v.item() for k, v in step.metrics.items()} == {
        "loss": 2,
        "align": 1,
        "perplexity_p": 7,
    }


def test_nothing_to_sum_is_refused():
    with pytest.raises(ValueError, match="weight 0"):
        weighted_sum([LossTerm("align", 0.0, never)])


def test_names_are_distinct():
    with pytest.raises(ValueError, match="distinct names"):
        weighted_sum([LossTerm("align", 1.0, never), LossTerm("align", 1.0, never)])


def test_weights_are_finite():
    assert LossTerm("critic", -0.01, never).weight == -0.01
    with pytest.raises(ValueError, match="nan"):
        LossTerm("critic", float("nan"), never)
