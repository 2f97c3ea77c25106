"""Tests of paired differences: second definitions, numbers by hand, and simulated error rates."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scores import assert_rate, from_differences, standardized
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from jaxdl import stats
from jaxdl.errors import InputError

NAN = math.nan
law = settings(deadline=None, derandomize=True, max_examples=150)


# sign_flip_test


@pytest.mark.parametrize(
  ("differences", "p"),
  [
    ([], 1),
    ([5], 1),
    ([0, 0, 0, 0], 1),
    ([1, 2, 3], 2 / 8),  # |sum| = 6 only for +++ and ---
    ([3, 2, -1], 4 / 8),  # |sum| >= 4: 6, 4, -4, -6 of 6, 4, 2, 0 and their opposites
    ([3, -2, 1], 6 / 8),  # |sum| >= 2
    ([1, 2, -3], 1),  # the sum is 0, which every pattern reaches
    ([1, 1, 1, -1], 10 / 16),  # ties: four patterns have sum 2, as many -2, and one each 4 and -4
  ],
)
def test_sign_flip_by_hand(differences, p):
  assert stats.sign_flip_test(np.array(differences, dtype=np.float64)) == p


@pytest.mark.parametrize("n", range(2, 13))
@pytest.mark.parametrize("ties", [False, True])
def test_sign_flip_is_scipys_permutation_test(n, ties):
  rng = np.random.default_rng(n)
  differences = rng.normal(0.4, 1, size=n)
  if ties:
    differences = np.round(2 * differences)
  expected = scipy.stats.permutation_test(
    (differences,), np.sum, permutation_type="samples", n_resamples=np.inf
  )
  assert stats.sign_flip_test(differences) == expected.pvalue


def test_sign_flip_counts_ties_in_spite_of_rounding():
  # Accuracies are counts over 10,000; their differences tie on paper and not in floating point.
  rng = np.random.default_rng(0)
  for _ in range(200):
    correct = rng.integers(9700, 9710, size=(8, 2))  # [n, A]
    accuracies = correct / 10_000
    exact = stats.sign_flip_test(correct[:, 0] - correct[:, 1])
    assert stats.sign_flip_test(accuracies[:, 0] - accuracies[:, 1]) == exact


def test_sign_flip_resampled_agrees_with_exact():
  num_resamples = 20_000
  for n in (5, 14, 36):  # 36: more differences than are tested exactly by default
    differences = standardized(n, mean=0.35 / math.sqrt(n / 14))
    exact = stats.sign_flip_test(differences, max_exact=n)
    resampled = stats.sign_flip_test(differences, num_resamples, seed=1, max_exact=0)
    assert 0.05 < exact < 0.5
    assert_rate(round(resampled * (1 + num_resamples)) - 1, num_resamples, exact)


def test_sign_flip_resampled_depends_on_its_seed_alone():
  differences = standardized(40, 0.2)
  p = stats.sign_flip_test(differences, 999, seed=3)
  assert stats.sign_flip_test(differences, 999, seed=3) == p
  assert stats.sign_flip_test(np.roll(-differences, 7), 999, seed=3) == p
  assert len({stats.sign_flip_test(differences, 999, seed=seed) for seed in range(5)}) > 1


def test_sign_flip_resampled_is_never_zero():
  assert stats.sign_flip_test(np.ones(60), num_resamples=499) == 1 / 500
  assert stats.sign_flip_test(np.zeros(60), num_resamples=499) == 1


def test_sign_flip_resampled_in_blocks_uses_every_resample():
  # 2^20 // 6000 = 174 patterns at a time: five full blocks and a rest.
  differences = np.r_[np.zeros(5999), 1.0]  # every pattern ties with the observed one
  assert stats.sign_flip_test(differences, num_resamples=999) == 1
  differences = standardized(6000, 0.01)
  p = stats.sign_flip_test(differences, num_resamples=999)
  assert_rate(round(p * 1000) - 1, 999, scipy.stats.ttest_1samp(differences, 0).pvalue)


@pytest.mark.parametrize(
  "differences", [np.zeros((3, 2)), np.array([1, NAN]), np.array([1, np.inf]), 1.0]
)
@pytest.mark.parametrize(
  "function",
  [stats.sign_flip_test, lambda d: stats.tost(d, 1), lambda d: stats.seeds_needed(d, 1)],
)
def test_differences_must_be_a_finite_vector(function, differences):
  with pytest.raises(ValueError, match="differences must be"):
    function(differences)


def test_sign_flip_refuses_no_resamples():
  with pytest.raises(InputError, match="num_resamples"):
    stats.sign_flip_test(np.ones(3), num_resamples=0)


# tost


def test_tost_by_hand():
  # Mean 2, std 1, t = (2.5 - 2) sqrt(3); with 2 degrees of freedom P(T > t) has a closed form.
  t = math.sqrt(3) / 2
  expected = 0.5 - t / (2 * math.sqrt(t * t + 2))
  assert stats.tost(np.array([1.0, 2.0, 3.0]), 2.5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", [-1.0, -0.2, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_tost_agrees_with_statsmodels(n, shift):
  rng = np.random.default_rng(n)
  a, b = rng.normal(shift, 1, size=n), rng.normal(size=n)
  for margin in (0.1, 0.5, 1.5):
    expected = max(ttost_paired(a, b, -margin, margin)[0], 0.5**n)
    assert stats.tost(a - b, margin) == pytest.approx(expected, rel=1e-9)


def test_tost_of_equal_differences_is_no_certainty():
  """Were half of all differences beyond the margin, n would lie within it with chance 2^-n."""
  constant = np.full(10, 0.1)  # its mean rounds to less than 0.1
  assert stats.tost(constant, 0.2) == 2.0**-10
  assert stats.tost(-constant, 0.2) == 2.0**-10
  assert stats.tost(constant, 0.1) == 1
  assert stats.tost(constant, 0.05) == 1
  assert stats.tost(np.zeros(2), 1e-12) == 0.25
  assert stats.tost(constant + 1e-4 * np.arange(10), 100) == 2.0**-10


# confidence_bounds


def test_confidence_bounds_by_hand():
  # Mean 2, std 1 and the 95% quantile of t with 4 degrees of freedom, 2.131847; 2^-5 < 0.05.
  half = 2.131846786326649 / math.sqrt(5)
  low, high = stats.confidence_bounds(standardized(5, 2), 0.05)
  assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-12)
  assert stats.confidence_bounds(standardized(5, 2), 0.03) == (-math.inf, math.inf)
  assert stats.confidence_bounds(np.array([1.0]), 0.05) == (-math.inf, math.inf)
  assert stats.confidence_bounds(np.full(6, 2.0), 0.05) == (2, 2)
  assert stats.confidence_bounds(np.full(4, 2.0), 0.05) == (-math.inf, math.inf)
  with pytest.raises(InputError, match="alpha must be between"):
    stats.confidence_bounds(np.ones(9), 0.5)


@pytest.mark.parametrize("differences", [[], [0.0]])
def test_tost_makes_no_claim_from_one_pair_or_none(differences):
  assert math.isnan(stats.tost(np.array(differences), 1))


@pytest.mark.parametrize("margin", [0, -1, NAN, math.inf])
def test_margin_must_be_positive_and_finite(margin):
  differences = np.array([1.0, 2.0])
  for call in (
    lambda: stats.tost(differences, margin),
    lambda: stats.seeds_needed(differences, margin),
    lambda: stats.compare(from_differences(differences), margin),
  ):
    with pytest.raises(InputError, match="margin must be positive and finite"):
      call()


# holm


def test_holm_by_hand():
  # Ascending 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04, the last raised to 0.06.
  np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06], rtol=1e-15)
  np.testing.assert_array_equal(stats.holm([0.6, 0.7]), [1, 1])
  assert stats.holm([]).shape == (0,)


@given(st.lists(st.sampled_from([0, 1e-9, 0.01, 0.02, 0.03, 0.3, 1]), min_size=1, max_size=7))
@settings(law, max_examples=30)
def test_holm_is_bonferroni_over_every_subset_and_keeps_the_order(p_values):
  """It closes Bonferroni's test: a hypothesis falls if every subset that has it does."""
  corrected = stats.holm(p_values)
  places = range(len(p_values))
  subsets = [s for n in places for s in itertools.combinations(places, n + 1)]
  for i in places:
    bonferroni = [len(s) * min(p_values[j] for j in s) for s in subsets if i in s]
    assert corrected[i] == pytest.approx(min(1, max(bonferroni)), rel=1e-12)
  assert np.all(corrected >= p_values)
  assert np.all(np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0)


@pytest.mark.parametrize("p_values", [[-0.1], [1.1], [NAN], [[0.1]], 0.1])
def test_holm_refuses(p_values):
  with pytest.raises(ValueError, match="p_values"):
    stats.holm(p_values)


# min_pairs and seeds_needed


def test_min_pairs_by_hand():
  assert stats.min_pairs(1) == 6  # 2/64 < 0.05 <= 2/32
  assert stats.min_pairs(3, 0.05) == 7  # 6/128 < 0.05 <= 6/64
  assert stats.min_pairs(1, 0.25) == 4  # 2/8 is not below 0.25
  assert stats.min_pairs(45) == 11  # ten arms


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("num_comparisons", [1, 3, 10, 45])
def test_min_pairs_is_where_the_most_extreme_outcome_becomes_significant(num_comparisons, alpha):
  significant = [
    n for n in range(2, 20) if num_comparisons * stats.sign_flip_test(np.ones(n)) < alpha
  ]
  assert stats.min_pairs(num_comparisons, alpha) == significant[0]


@pytest.mark.parametrize("alpha", [0, 0.5, 1, -0.1, NAN])
def test_alpha_must_be_a_level(alpha):
  scores = from_differences(np.arange(3))
  for call in (lambda: stats.min_pairs(1, alpha), lambda: stats.compare(scores, 1, alpha)):
    with pytest.raises(InputError, match="alpha must be between"):
      call()


def test_min_pairs_refuses_no_comparison():
  with pytest.raises(InputError, match="num_comparisons"):
    stats.min_pairs(0)


def test_min_pairs_equivalent_by_hand():
  assert stats.min_pairs_equivalent(1) == 16
  assert stats.min_pairs_equivalent(2, 0.4) == 16
  assert stats.min_pairs_equivalent(10_000) == 18  # 10,000 / 2^18 = 0.038, / 2^17 = 0.076


@pytest.mark.parametrize("num_comparisons", [1, 3, 10])
@pytest.mark.parametrize("effect", [0.05, 0.2, 0.5, 0.9, 1.4])
def test_seeds_needed_to_detect_agrees_with_statsmodels(effect, num_comparisons):
  differences = standardized(12, -effect * 0.01, 0.01)
  expected = TTestPower().solve_power(
    effect, power=0.8, alpha=0.05 / num_comparisons, alternative="two-sided"
  )
  needed = stats.seeds_needed(differences, 1e-6, num_comparisons)
  assert needed == max(math.ceil(expected), stats.min_pairs(num_comparisons))


def verdict_power(n, mean, margin, num_comparisons, num_at_margin):
  """P(a difference is shown) + P(equivalence is shown), std 1, by integration over the observed."""
  df = n - 1
  t_different = scipy.stats.t.isf(0.05 / num_comparisons / 2, df)
  t_equivalent = scipy.stats.t.isf(0.05 / num_at_margin, df)

  def integrand(std):
    room = margin - t_equivalent * std / math.sqrt(n)
    inside = np.diff(scipy.stats.norm.cdf(math.sqrt(n) * (np.array([-room, room]) - mean)))[0]
    outside = scipy.stats.norm.sf(t_different * std - mean * math.sqrt(n))
    density = scipy.stats.chi.pdf(std * math.sqrt(df), df) * math.sqrt(df)
    return (outside + (inside if room > 0 and n >= 16 else 0)) * density

  return scipy.integrate.quad(integrand, 0, 6, epsabs=1e-9, limit=200)[0]


# Effect and margin in standard deviations, pairs, pairs that can be at the margin, seeds needed.
_CELLS = [
  (1.0, 1.0, 45, 1, 21),
  (0.5, 0.5, 45, 1, 68),
  (0.25, 0.5, 3, 1, 51),
  (0.25, 0.5, 3, 2, 62),
  (0.0, 0.5, 45, 25, 74),
  (0.0, 0.5, 1, 1, 35),
  (0.5, 1.0, 1, 1, 16),
]


@pytest.mark.parametrize(("mean", "margin", "num_comparisons", "num_at_margin", "n"), _CELLS)
def test_seeds_needed_is_the_smallest_number_with_the_power(
  mean, margin, num_comparisons, num_at_margin, n
):
  unit = 0.01
  differences = unit * standardized(12, mean)
  assert n == stats.seeds_needed(
    differences, unit * margin, num_comparisons, num_at_margin=num_at_margin
  )
  power = verdict_power(n, mean, margin, num_comparisons, num_at_margin)
  assert power >= 0.8 - 2e-3  # Phillips's formula leaves out that both tests can fail together
  assert verdict_power(n - 1, mean, margin, num_comparisons, num_at_margin) < 0.8


def test_seeds_needed_at_its_ends():
  assert stats.seeds_needed(np.array([]), 1, 3) == 7
  assert stats.seeds_needed(np.array([5.0]), 1, 3) == 7
  assert stats.seeds_needed(np.array([5.0, 5.0]), 1, 3) == 7
  assert stats.seeds_needed(np.zeros(5), 1e-9, 3) == 16
  for n in (2, 12, 80):  # huge effects, where the noncentral t has no accurate value
    assert stats.seeds_needed(standardized(n, 1e9), 1e-9, 3) == 7
    assert stats.seeds_needed(standardized(n, 1e9), 1e-9, 10**9) == 36
  for mean in (0, 1e-6):
    assert stats.seeds_needed(standardized(12, mean), 1e-6) == stats.MAX_SEEDS_NEEDED


# Error rates, by simulation


def test_rate_of_false_positives_of_the_sign_flip_test():
  # Heavy tails: the test asks for symmetry only. With n = 10 the p-values are multiples of 2/1024,
  # each as likely as any other, so that P(p <= 0.05) = 50/1024.
  rng = np.random.default_rng(1)
  num_trials = 4000
  p_values = np.array([stats.sign_flip_test(x) for x in rng.standard_t(2, size=(num_trials, 10))])
  assert_rate(np.sum(p_values <= 0.05), num_trials, 50 / 1024)
  assert_rate(np.sum(p_values <= 0.5), num_trials, 0.5)
  resampled = np.array(
    [
      stats.sign_flip_test(x, num_resamples=99, seed=i, max_exact=0)
      for i, x in enumerate(rng.standard_t(2, size=(num_trials, 20)))
    ]
  )
  assert_rate(np.sum(resampled <= 0.05), num_trials, 0.05)


def test_rate_of_false_equivalence_at_the_margin():
  rng = np.random.default_rng(4)
  num_trials = 4000
  for difference in (-1, 1):
    p_values = [stats.tost(x, 1) for x in rng.normal(difference, 0.3, size=(num_trials, 8))]
    assert_rate(np.sum(np.array(p_values) < 0.05), num_trials, 0.05)


@pytest.mark.parametrize(
  ("mean", "margin", "num_comparisons", "num_at_margin"), [cell[:4] for cell in _CELLS[:4]]
)
def test_power_at_seeds_needed(mean, margin, num_comparisons, num_at_margin):
  rng = np.random.default_rng(5)
  num_trials = 2000
  n = stats.seeds_needed(
    standardized(9, mean), margin, num_comparisons, num_at_margin=num_at_margin
  )
  runs = rng.normal(mean, 1, size=(num_trials, n))
  t_test = scipy.stats.ttest_1samp(runs, 0, axis=1).pvalue < 0.05 / num_comparisons
  equivalent = [stats.tost(x, margin) < 0.05 / num_at_margin for x in runs]
  # 80% up to the rounding of n, less the runs in which both are shown.
  assert_rate(np.sum(t_test | np.array(equivalent)), num_trials, 0.77, 0.83)


def test_power_of_the_permutation_test_at_seeds_needed():
  rng = np.random.default_rng(5)
  num_trials = 3000
  n = stats.seeds_needed(standardized(9, 0.6), margin=1e-6)
  assert n == 24
  p_values = np.array([stats.sign_flip_test(x) for x in rng.normal(0.6, 1, size=(num_trials, n))])
  # 80% up to the rounding of n, and to what the permutation test loses against the t-test.
  assert_rate(np.sum(p_values < 0.05), num_trials, 0.79, 0.81)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 6))
def test_holm_of_a_part_is_that_of_all_with_the_others_at_one(p_values, others):
  whole = stats.holm([*p_values, *[1.0] * others])
  part = stats.holm(p_values, len(p_values) + others)
  np.testing.assert_array_equal(part, whole[: len(p_values)])
