import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tal_lib.evaluation.learning_curves import area_under, fit_power_law, needed_for

AMOUNTS = np.array([70, 150, 300, 450, 600, 750])


@given(st.floats(20, 200), st.floats(0.2, 1.5), st.floats(0, 10))
def test_a_power_law_is_found_again(scale, exponent, floor):
    score = 100 - floor - scale * (AMOUNTS / 100) ** -exponent
    assume(score.min() > 0)
    law = fit_power_law(AMOUNTS, score)
    assert np.abs(law(AMOUNTS) - score).max() < 0.3
    assert abs(law(1000) - (100 - floor - scale * 10**-exponent)) < 1


def test_two_amounts_are_too_few():
    with pytest.raises(ValueError, match="needs three"):
        fit_power_law([1, 2, 2], [50, 60, 61])


def test_annotation_needed():
    amounts, score = [10, 100, 1000], [40.0, 60.0, 80.0]
    assert needed_for(70, amounts, score) == pytest.approx(10**2.5)  # half way over log amount
    assert needed_for(60, amounts[::-1], score[::-1]) == pytest.approx(100)
    assert needed_for(30, amounts, score) == 10 and needed_for(90, amounts, score) == float("inf")


def test_area_is_the_mean_over_log_amount():
    assert area_under([1, 10, 100], [0.0, 50.0, 100.0]) == pytest.approx(50)
    assert area_under([1, 10, 100], [70.0, 70.0, 70.0]) == pytest.approx(70)
