import math

import pytest
import torch

from namd.config.seeding import generator
from namd.losses.alignment import alignment_loss, pool_latents

WIDE = {"sigma_z": 0.8, "sigma_f": 1.3, "temperature": 0.5}


def normal(*shape, seed=0):
    return torch.from_numpy(generator("test-alignment", seed).standard_normal(shape))


def literal_loss(z, f, sigma_z, sigma_f, temperature):
    """Eq 2-4 as printed, one number at a time."""

    def row(points, sigma, i):
        exps = {
            k: math.exp(-float(sum((points[k] - points[i]) ** 2)) / (2 * sigma**2) / temperature)
            for k in range(len(points))
            if k != i
        }
        return {j: e / sum(exps.values()) for j, e in exps.items()}

    total = 0.0
    for i in range(len(z)):
        p, q = row(f, sigma_f, i), row(z, sigma_z, i)
        total += sum(p[j] * math.log(p[j] / q[j]) for j in p)
    return total / len(z)


@pytest.mark.parametrize(("count", "temperature"), [(3, 1.0), (7, 0.5), (16, 1.0)])
def test_it_is_the_literal_sum_of_equations_2_to_4(count, temperature):
    z, f = normal(count, 4), normal(count, 6, seed=1)
    loss = alignment_loss(z, f, sigma_z=0.8, sigma_f=1.3, temperature=temperature).loss
    assert loss.item() == pytest.approx(literal_loss(z, f, 0.8, 1.3, temperature), rel=1e-12)


def test_swapped_sigmas_are_not_the_equation():
    z, f = normal(7, 4), normal(7, 6, seed=1)
    swapped = alignment_loss(z, f, sigma_z=1.3, sigma_f=0.8, temperature=1.0).loss
    assert swapped.item() != pytest.approx(literal_loss(z, f, 0.8, 1.3, 1.0), rel=1e-3)


def test_gradients_agree_with_differences():
    f = normal(6, 3, seed=1)
    z = normal(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: alignment_loss(x, f, **WIDE).loss, z)


def test_gradcheck_would_notice_a_cut_gradient():
    f = normal(6, 3, seed=1)
    z = normal(6, 4).requires_grad_()

    def half_detached(x):
        return alignment_loss(torch.cat([x[:3], x[3:].detach()]), f, **WIDE).loss

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(half_detached, z)


def test_the_target_carries_no_gradient_and_the_latents_do():
    z, f = normal(5, 4).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    alignment_loss(z, f, **WIDE).loss.backward()
    assert f.grad is None
    assert z.grad.abs().sum() > 0


def test_order_of_cases_changes_nothing_but_pairing_does():
    z, f = normal(9, 4), normal(9, 3, seed=1)
    order = torch.from_numpy(generator("test-order").permutation(9))
    loss = alignment_loss(z, f, **WIDE).loss
    torch.testing.assert_close(alignment_loss(z[order], f[order], **WIDE).loss, loss)
    assert abs(alignment_loss(z, f[order], **WIDE).loss - loss) > 1e-3


def test_equal_distances_align_perfectly():
    z = normal(9, 4)
    rotation, _ = torch.linalg.qr(normal(4, 4, seed=2))
    rotated = alignment_loss(z, z @ rotation, sigma_z=1.0, sigma_f=1.0, temperature=1.0)
    assert rotated.loss.item() == pytest.approx(0, abs=1e-12)
    assert rotated.perplexity_p.item() == pytest.approx(rotated.perplexity_q.item())
    assert alignment_loss(z, z, sigma_z=0.5, sigma_f=1.0, temperature=1.0).loss > 1e-2


def test_a_wide_target_kernel_is_uniform():
    z, f = normal(64, 4), normal(64, 3, seed=1)
    wide = alignment_loss(z, f, sigma_z=1.0, sigma_f=100.0, temperature=0.5)
    sharp = alignment_loss(z, f, sigma_z=1.0, sigma_f=1.0, temperature=0.5)
    assert wide.perplexity_p.item() == pytest.approx(63, abs=0.01)
    assert sharp.perplexity_p < 40


def test_masked_rows_are_in_no_pair():
    z, f = normal(8, 4), normal(8, 3, seed=1)
    mask = torch.tensor([True] * 8)
    mask[[2, 5]] = False
    f_missing = f.clone()
    f_missing[~mask] = float("nan")
    z_masked = z.clone().requires_grad_()
    masked = alignment_loss(z_masked, f_missing, mask=mask, **WIDE)
    cut = alignment_loss(z[mask], f[mask], **WIDE)
    torch.testing.assert_close(masked.loss, cut.loss)
    torch.testing.assert_close(masked.perplexity_p, cut.perplexity_p)
    torch.testing.assert_close(masked.perplexity_q, cut.perplexity_q)
    masked.loss.backward()
    assert torch.isfinite(z_masked.grad).all()
    assert not z_masked.grad[~mask].any()
    assert z_masked.grad[mask].any()
    assert abs(alignment_loss(z, f, **WIDE).loss - cut.loss) > 1e-3


def test_latents_far_apart_give_no_nan():
    z = (normal(6, 4) * 1e3).float().requires_grad_()
    loss = alignment_loss(z, normal(6, 3, seed=1).float() * 50, **WIDE).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_narrow_latents_are_computed_in_float32():
    z, f = normal(8, 4).bfloat16(), normal(8, 3, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = alignment_loss(z, f, **WIDE).loss
    torch.testing.assert_close(narrow, alignment_loss(z.float(), f, **WIDE).loss)


def test_three_cases_are_enough_and_two_are_not():
    z, f = normal(3, 4), normal(3, 3, seed=1)
    assert torch.isfinite(alignment_loss(z, f, **WIDE).loss)
    with pytest.raises(ValueError, match="at least 3 cases, got 2"):
        alignment_loss(z, f, mask=torch.tensor([True, True, False]), **WIDE)


@pytest.mark.parametrize("name", ["sigma_z", "sigma_f", "temperature"])
def test_widths_are_positive(name):
    with pytest.raises(ValueError, match=name):
        alignment_loss(normal(4, 4), normal(4, 3), **WIDE | {name: 0.0})


def test_pooling_gives_four_numbers_and_flattening_all():
    latents = normal(3, 4, 8, 8)
    assert pool_latents(latents, "pooled").shape == (3, 4)
    torch.testing.assert_close(pool_latents(latents, "pooled")[1, 2], latents[1, 2].mean())
    assert torch.equal(pool_latents(latents, "flatten"), latents.reshape(3, 256))
