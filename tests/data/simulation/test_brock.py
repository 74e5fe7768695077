import numpy as np
import pytest
from scipy.special import expit

from namd.data.simulation import brock


def logit(mm=8.0, attenuation=1, margins=2, age=62, gender=1, family=0, emphysema=0, lobe=3):
    image = brock.image_logit(*(np.array([v]) for v in (mm, mm, attenuation, margins)))
    record = brock.record_logit(*(np.array([v]) for v in (age, gender, family, emphysema, lobe)))
    return image, record


def test_probability_equals_the_published_formula_by_hand():
    # A 62-year-old man, solid smooth 10 mm nodule, lower lobe, no history, four nodules:
    # -6.7892 - 5.3854 (1 - 1.58113883) = -3.6596.
    assert brock.probability(*logit(mm=10.0))[0] == pytest.approx(0.02509, abs=1e-5)
    # A 70-year-old woman with emphysema and an affected mother, spiculated part-solid 15 mm in
    # the upper lobe: size term 4.1179; 0.2296 + 0.6011 + 0.2961 + 0.2953 + 0.6581 + 0.377 +
    # 0.7729 = 3.2301; sum 0.5589.
    image, record = logit(15.0, 3, 1, 70, 2, 1, 1, 4)
    assert brock.probability(image, record)[0] == pytest.approx(0.63617, abs=1e-4)


def test_a_nodule_of_4_mm_has_no_size_term_and_a_wrong_unit_shows():
    assert logit(mm=4.0)[0][0] == pytest.approx(0.0, abs=1e-7)
    assert abs(logit(mm=0.4)[0][0]) > 10


def test_the_lingula_counts_as_upper_lobe_and_the_middle_lobe_does_not():
    assert logit(lobe=5)[1] == logit(lobe=4)[1] == logit(lobe=1)[1]
    assert logit(lobe=2)[1] < logit(lobe=1)[1]


@pytest.mark.parametrize("prevalence", [0.05, 0.15, 0.6])
def test_the_intercept_gives_the_prevalence(prevalence):
    spread = np.random.default_rng(0).normal(3.0, 2.0, 500)
    intercept = brock.solve_intercept(spread, prevalence)
    assert expit(intercept + spread).mean() == pytest.approx(prevalence, abs=1e-9)
    assert expit(intercept + 0.2 + spread).mean() != pytest.approx(prevalence, abs=1e-3)


def test_an_intercept_needs_finite_logits():
    with pytest.raises(ValueError, match="finite"):
        brock.solve_intercept(np.array([1.0, np.nan]), 0.15)
