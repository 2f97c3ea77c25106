"""Crossed intervals: by hand, against a second definition, and their coverage."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import stats


def test_by_hand():
  """Two seeds and two examples: D = [[1, 0], [0, 0]] has means 1/2, 0 either way, and 1/4 over all.

  v_S = v_T = Var(1/2, 0) / 2 = 1/16. The rest is 1/4, -1/4, -1/4, 1/4, so MS_ST = 4 / 16 with one
  degree of freedom and v_ST = 1/16. The part of the examples is 0, and the interval that of seeds.
  """
  found = stats.crossed_interval(np.array([[1, 0], [0, 0]]))
  half = scipy.stats.t.ppf(0.975, 1) / 4
  assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half))
  assert (found.seed_share, found.example_share, found.both_share) == pytest.approx((0, 0, 1))
  assert (found.num_seeds, found.num_examples, found.resolution) == (2, 2, 0)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 9))
def test_law_the_parts_are_those_of_the_analysis_of_variance(seed, num_seeds, num_examples):
  """Sums of squares add up; the expected mean squares give the parts."""
  d = np.random.default_rng(seed).integers(-1, 2, size=(num_seeds, num_examples)).astype(float)
  if np.ptp(d) == 0:
    return
  total = ((d - d.mean()) ** 2).sum()
  of_seeds = num_examples * ((d.mean(axis=1) - d.mean()) ** 2).sum()
  of_examples = num_seeds * ((d.mean(axis=0) - d.mean()) ** 2).sum()
  rest = (total - of_seeds - of_examples) / ((num_seeds - 1) * (num_examples - 1))
  var_s = of_seeds / (num_seeds - 1) / d.size
  var_t = max(0, of_examples / (num_examples - 1) - rest) / d.size
  found = stats.crossed_interval(d)
  if var_s + var_t == 0:
    assert math.isnan(found.low)
    return
  assert found.example_share == pytest.approx(var_t / (var_s + var_t), abs=1e-9)
  shares = found.seed_share + found.example_share + found.both_share
  assert shares == pytest.approx(1)
  critical = scipy.stats.t.ppf(0.975, num_examples - 1)
  assert found.resolution == pytest.approx(critical * math.sqrt(var_t), abs=1e-9)
  seeds_only = scipy.stats.t.ppf(0.975, num_seeds - 1) * math.sqrt(var_s)
  if var_t == 0:
    assert (found.high - found.low) / 2 == pytest.approx(seeds_only)


def test_nothing_is_said_of_one_seed_or_equal_differences():
  for d in (np.ones((1, 5)), np.ones((5, 1)), np.ones((4, 5)), np.zeros((0, 3))):
    assert math.isnan(stats.crossed_interval(d).low)
  with pytest.raises(ValueError, match="differences must be"):
    stats.crossed_interval(np.zeros(3))


def test_coverage_at_64_seeds_and_500_images():
  """Nominal 95%; over seeds alone the same intervals cover 84%."""
  rng = np.random.default_rng(0)
  num_trials, covered, seeds_only = 400, 0, 0
  # Logistic members: images differ in how hard they are for both arms and for each of them.
  for _ in range(num_trials):
    hard, own = rng.normal(2.5, 1.5, size=500), rng.normal(0, 0.5, size=(2, 500))
    skill = rng.normal(0, 0.15, size=(2, 64, 1)) + rng.normal(0, 0.3, size=(64, 1))
    right = rng.random((2, 64, 500)) < 1 / (1 + np.exp(-(hard + own[:, None] + skill)))
    d = right[0].astype(float) - right[1]  # no difference, on average over images and seeds
    found = stats.crossed_interval(d)
    covered += found.low <= 0 <= found.high
    half = scipy.stats.t.ppf(0.975, 63) * d.mean(axis=1).std(ddof=1) / 8
    seeds_only += abs(d.mean()) <= half
  assert 0.93 * num_trials <= covered <= 0.975 * num_trials
  assert seeds_only < 0.92 * num_trials
