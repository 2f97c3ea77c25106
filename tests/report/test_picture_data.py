"""Numbers that pictures show: of the members that have a result, and within their limits."""

import numpy as np
import pytest
from drawing import make_population

from jaxdl.report import picture_data


def test_members_without_a_result_are_in_no_mean():
  """Neither one that diverged nor one that was not trained, whose curve is empty."""
  population = make_population(num_seeds=4, diverged=[(0, 1, 3)])
  population.status[3, 1], population.epochs[3, 1] = "not_trained", 0
  for curve in population.curves.values():
    curve[3, 1] = np.nan
  means = picture_data.mean_curves(population, "val_accuracy")
  kept = population.curves["val_accuracy"][1:3, 1]
  np.testing.assert_allclose(means[1], 100 * kept.mean(axis=0))
  assert picture_data.arms_with_results(population) == ["arm 0", "arm 1"]


def test_an_arm_without_a_result_has_no_curve():
  population = make_population(num_seeds=2, diverged=[(0, 0, 2), (1, 0, 1)])
  curves = picture_data.valid_curves(population, "train_loss")[:, 0]
  assert [len(of) for of in picture_data.curve_interval(population, 0, curves, "loss")] == [0] * 3
  assert list(picture_data.last_points(population, 0, curves, worst=9.0)) == [
    (0, "diverged", 1, curves[0, 0]),
    (1, "diverged", 1, 9.0),
  ]
  assert picture_data.arms_with_results(population) == ["arm 1"]


def test_intervals_widen_an_axis_by_half_at_most():
  values = np.array([[0.0], [1.0], [np.nan]])
  low, high = picture_data.score_limits(values, [-9.0, 1.1, np.nan])
  assert (low, high) == pytest.approx((-0.25 - 0.04 * 1.35, 1.1 + 0.04 * 1.35))
  assert picture_data.score_limits(np.array([[5.0]]), [np.nan]) == pytest.approx((4.9, 5.1))


@pytest.mark.parametrize("num", [1, 2, 64])
def test_offsets_fill_their_interval(num):
  offsets = picture_data.spread(num)
  assert len(set(offsets)) == num
  assert np.abs(offsets).max() <= 0.5
  assert np.diff(np.sort([-0.5, *offsets, 0.5])).max() < 2 / num


def test_an_interval_of_huge_losses_is_finite():
  """A rate far too large gives losses whose square is beyond the range of a float32."""
  values = np.array([1e30, 3e30], np.float32)
  mean, low, high = picture_data.mean_interval(values, limits=(0, np.inf))
  assert (mean, low, high) == pytest.approx((2e30, 0, 2e30 + 12.706 * 1e30), rel=1e-3)
