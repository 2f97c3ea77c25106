"""Verdicts over seeds: second definitions, numbers by hand, laws, and simulated error rates."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from jaxdl import stats
from jaxdl.errors import InputError

NAN = math.nan
law = settings(deadline=None, derandomize=True, max_examples=150)


def make_scores(values, arms=None, higher_is_better=True, metric="accuracy"):
  values = np.asarray(values, dtype=np.float64)  # [S, A]
  arms = arms or tuple("abcdefgh"[: values.shape[1]])
  return stats.Scores(
    metric=metric,
    values=values,
    seeds=tuple(range(values.shape[0])),
    arms=arms,
    axes=("seed", "arm"),
    higher_is_better=higher_is_better,
  )


def from_differences(differences, **kwargs):
  """Two arms, a and b, whose paired differences are these."""
  differences = np.asarray(differences, dtype=np.float64)
  return make_scores(np.stack([differences, np.zeros(len(differences))], axis=1), **kwargs)


def standardized(n, mean, std=1.0):
  """Differences [n] with exactly this mean and std."""
  x = np.linspace(-1, 1, n)
  return mean + std * x / np.std(x, ddof=1)


def assert_alike(actual, expected, rel=1e-9, abs=0.0):
  """Two records agree: floats up to a tolerance, all else exactly."""
  assert type(actual) is type(expected)
  for name, value in dataclasses.asdict(expected).items():
    other = getattr(actual, name)
    if isinstance(value, float):
      assert other == pytest.approx(value, rel=rel, abs=abs, nan_ok=True), name
    else:
      assert (type(other), other) == (type(value), value), name


def assert_rate(count, num_trials, low, high=None):
  """The rate lies between low and high, up to a binomial error of four standard deviations."""
  high = low if high is None else high
  tail = scipy.stats.norm.sf(4)
  assert scipy.stats.binom.ppf(tail, num_trials, low) <= count, count / num_trials
  assert count <= scipy.stats.binom.isf(tail, num_trials, high), count / num_trials


# Scores


def scores_kwargs(**changes):
  kwargs = {
    "metric": "accuracy",
    "values": np.zeros((3, 2)),
    "seeds": (0, 1, 2),
    "arms": ("a", "b"),
    "axes": ("seed", "arm"),
    "higher_is_better": True,
  }
  return kwargs | changes


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"values": np.zeros((2, 3))},
      r"axis 'seed' has length 2 for 3 seeds and axis 'arm' has length 3 for 2 arms; .*transposed",
    ),
    ({"values": np.zeros((4, 2))}, r"axis 'seed' has length 4 for 3 seeds"),
    ({"values": np.zeros((3, 3))}, r"axis 'arm' has length 3 for 2 arms"),
    (
      {"values": np.zeros((2, 3)), "axes": ("arm", "seed")},
      r"axis 'arm' has length 2, axis 'seed' has length 3\); the array is transposed",
    ),
    ({"values": np.zeros((2, 2)), "seeds": (0, 1), "axes": ("arm", "seed")}, "transposed"),
    ({"axes": ("seed", "epoch")}, r"must be \('seed', 'arm'\), got \('seed', 'epoch'\)"),
    ({"axes": ("seed", "arm", "epoch")}, "axes"),
    ({"values": np.zeros(3)}, r"two axes .* shape \(3,\)"),
    ({"values": np.zeros((3, 2, 1))}, "two axes"),
    ({"values": np.full((3, 2), np.inf)}, "6 are infinite"),
    ({"values": np.zeros((3, 2), complex)}, "real numbers"),
    ({"diverged_as": NAN}, "diverged_as must be finite"),
    ({"values": [["1", "2"]] * 3}, "real numbers"),
    ({"values": np.zeros((3, 2), np.float32)}, "float32.*divide counts in float64"),
    ({"values": np.zeros((3, 2), np.float16)}, "float16.*divide counts in float64"),
    ({"seeds": (0, 1, 1)}, "seed must occur once"),
    ({"seeds": (0, 1, 2.0)}, "integers"),
    ({"seeds": (False, True, 2)}, "integers"),
    ({"arms": ("a", "a")}, "arm must occur once"),
    ({"arms": ("a", 1)}, "sequence of strings"),
    ({"arms": "ab"}, "sequence of strings"),
  ],
)
def test_scores_refuses(changes, message):
  with pytest.raises(ValueError, match=message):
    stats.Scores(**scores_kwargs(**changes))


@pytest.mark.parametrize("higher_is_better", [None, 1, "loss"])
def test_scores_needs_a_direction(higher_is_better):
  with pytest.raises(TypeError, match="higher_is_better"):
    stats.Scores(**scores_kwargs(higher_is_better=higher_is_better))


def test_scores_needs_the_axes_to_be_named():
  kwargs = scores_kwargs()
  del kwargs["axes"]
  with pytest.raises(TypeError, match="axes"):
    stats.Scores(**kwargs)


def test_float32_would_take_ties_apart():
  """Why it is refused: of made-up pairs of arms, half get a smaller p-value than they should."""
  rng = np.random.default_rng(0)
  correct = rng.integers(9700, 9710, size=(2000, 8, 2))
  smaller = 0
  for of_run in correct:
    a, b = (of_run / 10_000).astype(np.float32).astype(float).T
    smaller += stats.sign_flip_test(a - b) < stats.sign_flip_test(of_run[:, 0] - of_run[:, 1])
  assert smaller > 600


def test_scores_keeps_its_own_read_only_float64():
  values = np.arange(6).reshape(3, 2)
  scores = stats.Scores(**scores_kwargs(values=values, seeds=np.arange(3), axes=["seed", "arm"]))
  values[0, 0] = 7
  assert scores.values.dtype == np.float64
  assert scores.values[0, 0] == 0
  assert [type(seed) for seed in scores.seeds] == [int] * 3
  with pytest.raises(ValueError, match="read-only"):
    scores.values[0, 0] = 7


# summarize


def test_summarize_by_hand():
  # Mean 2, std 1; the 97.5% quantile of t with 2 degrees of freedom is 4.302653.
  summary = stats.summarize(make_scores([[1], [2], [NAN], [3]]))[0]
  half = 4.302652729911275 / math.sqrt(3)
  assert_alike(summary, stats.ArmSummary("a", 3, 1, 2.0, 1.0, 1.0, 3.0, 2 - half, 2 + half))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_summarize_agrees_with_scipy(confidence):
  values = np.random.default_rng(0).normal(size=(9, 4))
  for summary, column in zip(
    stats.summarize(make_scores(values), confidence), values.T, strict=True
  ):
    interval = scipy.stats.ttest_1samp(column, 0).confidence_interval(confidence)
    assert (summary.ci_low, summary.ci_high) == pytest.approx(tuple(interval), rel=1e-12)


def test_summarize_makes_no_claim_from_one_seed_or_none():
  one, none = stats.summarize(make_scores([[0.5, NAN], [NAN, NAN]]))
  assert_alike(one, stats.ArmSummary("a", 1, 1, 0.5, NAN, 0.5, 0.5, NAN, NAN))
  assert (none.n, none.num_diverged) == (0, 2)
  assert all(math.isnan(x) for x in dataclasses.astuple(none)[3:])


def test_summarize_of_equal_values_has_no_spread_and_no_interval():
  # The mean rounds, so that NumPy finds a spread of 1e-17 or so.
  values = np.full((6, 1), 0.1)
  assert np.std(values, ddof=1) > 0
  (summary,) = stats.summarize(make_scores(values))
  assert summary.std == 0
  assert math.isnan(summary.ci_low)
  assert math.isnan(summary.ci_high)


def test_summarize_cuts_the_interval_to_the_limits_of_the_metric():
  # Mean 0.9, std 0.1414, and t with one degree of freedom is 12.7: 0.9 ± 1.27.
  scores = make_scores([[0.8], [1.0]])
  (free,) = stats.summarize(scores)
  (cut,) = stats.summarize(scores, limits=(0, 1))
  assert (free.ci_low, free.ci_high) == pytest.approx((-0.3706, 2.1706), abs=1e-4)
  assert (cut.ci_low, cut.ci_high) == (0, 1)


@pytest.mark.parametrize("confidence", [0, 1, 95, NAN])
def test_summarize_refuses(confidence):
  with pytest.raises(InputError, match="confidence"):
    stats.summarize(make_scores([[1]]), confidence)


# paired_differences


def test_paired_differences_pairs_by_seed_and_drops_diverged():
  scores = make_scores([[1, 0.5], [NAN, 2], [3, NAN], [NAN, NAN], [4, 1]])
  np.testing.assert_array_equal(stats.paired_differences(scores, "a", "b"), [0.5, 3])
  np.testing.assert_array_equal(stats.paired_differences(scores, "b", "a"), [-0.5, -3])


def test_paired_differences_names_the_unknown_arm():
  with pytest.raises(InputError, match="unknown arm 'glorot'; did you mean 'glorot_uniform'"):
    stats.paired_differences(make_scores([[1, 2]], ("he", "glorot_uniform")), "he", "glorot")


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


# compare


def only(verdicts):
  assert len(verdicts) == 1
  return verdicts[0]


def test_verdict_has_its_fields_in_order():
  names = [field.name for field in dataclasses.fields(stats.Verdict)]
  assert " ".join(names) == (
    "metric arm_a arm_b num_pairs mean_difference ci_low ci_high p_value p_holm p_beyond_margin "
    "p_equivalence margin verdict beyond_margin seeds_needed num_diverged_a num_diverged_b "
    "num_seeds confidence design budget diverged_as without_diverged new_examples floor "
    "median_unbiased may_be_best"
  )


def test_compare_fills_the_verdict_from_the_pairs():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(12, 4)) + np.array([0, 0.5, 3, 0])
  values[2, 1] = values[5, 1] = values[5, 3] = NAN
  verdicts = stats.compare(make_scores(values, metric="loss"), margin=0.7)
  assert [(v.arm_a, v.arm_b) for v in verdicts] == list(itertools.combinations("abcd", 2))
  p_holm = multipletests([v.p_value for v in verdicts], method="holm")[1]
  pairs = list(itertools.combinations(range(4), 2))
  differences = [values[:, a] - values[:, b] for a, b in pairs]
  differences = [d[~np.isnan(d)] for d in differences]
  beyond = [
    stats.sign_flip_test(d - 0.7 * np.sign(d.mean())) if abs(d.mean()) > 0.7 else 1.0
    for d in differences
  ]
  beyond = multipletests(beyond, method="holm")[1]
  for verdict, (a, b), kept, p, p_beyond in zip(
    verdicts, pairs, differences, p_holm, beyond, strict=True
  ):
    t_test = scipy.stats.ttest_1samp(kept, 0)
    expected = stats.Verdict(
      metric="loss",
      arm_a="abcd"[a],
      arm_b="abcd"[b],
      num_pairs={(0, 1): 10, (1, 2): 10, (1, 3): 10, (0, 2): 12}.get((a, b), 11),
      mean_difference=float(np.mean(kept)),
      ci_low=float(t_test.confidence_interval(0.95).low),
      ci_high=float(t_test.confidence_interval(0.95).high),
      p_value=stats.sign_flip_test(kept),
      p_holm=float(p),
      p_beyond_margin=float(p_beyond),
      # Of four arms, four pairs can be exactly the margin apart.
      p_equivalence=min(1.0, 4 * float(ttost_paired(kept, np.zeros(len(kept)), -0.7, 0.7)[0])),
      margin=0.7,
      verdict=verdict.verdict,
      beyond_margin=bool(verdict.verdict in ("better", "worse") and p_beyond < 0.05),
      seeds_needed=verdict.seeds_needed,
      num_diverged_a=[0, 2, 0, 1][a],
      num_diverged_b=[0, 2, 0, 1][b],
      num_seeds=12,
    )
    assert_alike(verdict, expected)


@pytest.mark.parametrize(
  ("differences", "margin", "higher_is_better", "expected"),
  [
    (standardized(8, 3), 1, True, "better"),
    (standardized(8, -3), 1, True, "worse"),
    (standardized(8, 3), 1, False, "worse"),
    (standardized(8, -3), 1, False, "better"),
    (standardized(16, 3), 10, True, "equivalent"),  # significant, and too small to matter
    (standardized(16, -3), 10, True, "equivalent"),
    (standardized(15, 3), 10, True, "better"),  # fewer than 16 show no equivalence
    (np.zeros(16), 0.1, True, "equivalent"),
    (np.zeros(15), 0.1, True, "undecided"),
    (standardized(8, 0.4), 1, True, "undecided"),
    (standardized(5, 30), 1, True, "too few seeds"),
    (np.zeros(5), 0.1, True, "too few seeds"),  # as equivalent as can be, from five seeds
    ([7.0], 1, True, "too few seeds"),
    ([NAN] * 9, 1, True, "too few seeds"),
    ([NAN] * 4 + [1, 2, 1, 2, 1], 0.1, True, "too few seeds"),  # 9 seeds, 5 pairs
    ([NAN] * 4 + [1, 2, 1, 2, 1, 2], 0.1, True, "better"),
  ],
)
def test_compare_decides(differences, margin, higher_is_better, expected):
  scores = from_differences(differences, higher_is_better=higher_is_better)
  verdict = only(stats.compare(scores, margin))
  assert verdict.verdict == expected
  kept = np.array([d for d in differences if not math.isnan(d)])
  assert (verdict.num_pairs, verdict.num_diverged_a) == (len(kept), len(differences) - len(kept))
  needed = {"undecided": stats.seeds_needed(kept, margin), "too few seeds": 6}
  assert verdict.seeds_needed == needed.get(expected)


def test_compare_calls_arms_that_diverge_never_equivalent():
  values = np.zeros((20, 2))
  assert only(stats.compare(make_scores(values), 1)).verdict == "equivalent"
  values[3, 1] = NAN
  verdict = only(stats.compare(make_scores(values), 1))
  assert (verdict.verdict, verdict.seeds_needed) == ("undecided", None)
  assert "alike, but arms of which one diverged are not called equivalent" in stats.sentence(
    verdict
  )


@pytest.mark.parametrize(
  ("mean", "expected"), [(1.5, False), (2.9, True), (-1.5, False), (-2.9, True)]
)
def test_compare_says_whether_a_difference_exceeds_the_margin(mean, expected):
  """The margin is 1, the standard deviation 1; of 8 pairs 2/256 is the smallest p."""
  verdict = only(stats.compare(from_differences(standardized(8, mean)), 1))
  assert verdict.verdict == ("better" if mean > 0 else "worse")
  assert verdict.beyond_margin is expected
  shifted = standardized(8, abs(mean)) - 1
  assert verdict.p_beyond_margin == stats.sign_flip_test(shifted)
  assert verdict.p_beyond_margin < 0.05 if expected else verdict.p_beyond_margin > 0.05


def test_compare_corrects_equivalence_for_the_pairs_that_can_be_at_the_margin():
  """Ten arms: 25 pairs, those between two clusters of five; with a reference the nine others."""
  values = np.random.default_rng(0).normal(size=(16, 10))
  for reference, factor in ((None, 25), ("a0", 9)):
    arms = tuple(f"a{i}" for i in range(10))
    verdicts = stats.compare(make_scores(values, arms), 1.2, reference=reference)
    for v in verdicts:
      alone = stats.tost(stats.paired_differences(make_scores(values, arms), v.arm_a, v.arm_b), 1.2)
      assert v.p_equivalence == pytest.approx(min(1, factor * alone), rel=1e-12)


def test_compare_tests_nothing_where_there_are_too_few_seeds():
  verdict = only(stats.compare(from_differences([1.0, 2.0, 3.0, 4.0, 5.0]), 1))
  assert verdict.verdict == "too few seeds"
  assert all(
    math.isnan(p) for p in (verdict.p_value, verdict.p_holm, verdict.p_beyond_margin,
                            verdict.p_equivalence)
  )  # fmt: skip


def test_compare_of_many_arms_with_too_few_seeds_computes_no_test(monkeypatch):
  def refuse(*args):
    raise AssertionError("a test was computed")

  for name in ("samples.sign_flip_test", "samples.tost", "verdicts.seeds_for_power"):
    monkeypatch.setattr(f"jaxdl.stats.{name}", refuse)
  arms = tuple(f"arm {i}" for i in range(40))
  verdicts = stats.compare(make_scores(np.random.default_rng(0).normal(size=(8, 40)), arms), 1)
  assert {v.verdict for v in verdicts} == {"too few seeds"}


@pytest.mark.parametrize("design", ["compare", "looks", "anytime"])
def test_runs_that_diverged_count_and_the_verdict_without_them_stands_beside(design):
  """One arm is better wherever it trains, and diverges in a quarter of the seeds."""
  compare = {
    "compare": lambda scores: stats.compare(scores, 0.001),
    "looks": lambda scores: stats.compare_looks(scores, 0.001, 32),
    "anytime": lambda scores: stats.compare_anytime(scores, 0.001),
  }[design]
  rng = np.random.default_rng(0)
  values = rng.normal([0.92, 0.9, 0.9], 0.002, size=(32, 3))
  values[::4, 0] = NAN
  scores = make_scores(values)
  counted = dataclasses.replace(scores, diverged_as=0.1)
  left_out, treated = compare(scores), compare(counted)
  filled = compare(make_scores(np.where(np.isnan(values), 0.1, values)))
  for before, after, full in zip(left_out, treated, filled, strict=True):
    diverged = "a" in (after.arm_a, after.arm_b)
    assert after.diverged_as == (0.1 if diverged else None)
    assert (after.without_diverged is None) == (not diverged)
    if diverged:
      assert stats.to_json(after.without_diverged) == stats.to_json(before)
      assert after.num_pairs == full.num_pairs > before.num_pairs
      assert after.mean_difference == full.mean_difference < 0 < before.mean_difference
      assert before.verdict == "better"
      assert after.verdict != "better"
      assert (after.num_diverged_a, full.num_diverged_a) == (after.num_seeds // 4, 0)
  text = stats.sentence(treated[0])
  assert "; a diverged in" in text
  assert "which count as 0.1; without them: better (difference 0.0" in text
  json.dumps([stats.to_json(v) for v in treated], allow_nan=False)


def test_an_arm_that_always_diverges_leaves_no_pair_without_it():
  scores = dataclasses.replace(make_scores([[0.9, NAN], [0.8, NAN]]), diverged_as=0.1)
  text = stats.sentence(only(stats.compare(scores, 0.1)))
  assert text.endswith("which count as 0.1; no pair of runs is without them")


def test_arms_that_diverge_on_the_same_seeds_are_not_called_equivalent():
  values = np.full((32, 2), 0.9)
  values[5] = NAN
  scores = dataclasses.replace(make_scores(values), diverged_as=0.1)
  for verdict in (
    only(stats.compare(scores, 0.1)),
    only(stats.compare_looks(scores, 0.1, 32)),
    only(stats.compare_anytime(scores, 0.1)),
  ):
    assert (verdict.verdict, verdict.num_pairs) == ("undecided", 32)


def test_compare_corrects_for_the_number_of_arms():
  # Six pairs of one sign: p = 2/64 decides between two arms, not among three (3 * 2/64 > 0.05).
  values = np.arange(6)[:, None] * [[0.1, 0.0, 0.2]] + [[5, 0, 10]]
  assert only(stats.compare(make_scores(values[:, :2]), 0.1)).verdict == "better"
  verdicts = stats.compare(make_scores(values), 0.1)
  assert [(v.verdict, v.seeds_needed) for v in verdicts] == [("too few seeds", 7)] * 3
  values = np.arange(7)[:, None] * [[0.1, 0.0, 0.2]] + [[5, 0, 10]]
  verdicts = stats.compare(make_scores(values), 0.1)
  assert [v.verdict for v in verdicts] == ["better", "worse", "worse"]
  assert [v.p_holm for v in verdicts] == [6 / 128] * 3


def test_compare_seeds_needed_pays_for_the_correction():
  values = np.stack([standardized(12, 0.4), np.zeros(12), np.roll(standardized(12, 0.2), 5)], 1)
  two = only(stats.compare(make_scores(values[:, :2]), 0.01))
  three = stats.compare(make_scores(values), 0.01)[0]
  assert two.seeds_needed == stats.seeds_needed(values[:, 0], 0.01, 1)
  assert three.seeds_needed == stats.seeds_needed(values[:, 0], 0.01, 3, num_at_margin=2)
  assert two.seeds_needed < three.seeds_needed


def test_compare_passes_on_alpha_num_resamples_and_seed():
  scores = from_differences(standardized(40, 0.36))
  verdict = only(stats.compare(scores, 0.01, num_resamples=999, seed=4))
  expected = stats.sign_flip_test(scores.values[:, 0], num_resamples=999, seed=4)
  assert verdict.p_value == expected
  assert verdict.verdict == "better"
  strict = only(stats.compare(scores, 0.01, alpha=0.005, num_resamples=999, seed=4))
  assert strict.verdict == "undecided"
  assert strict.seeds_needed == stats.seeds_needed(scores.values[:, 0], 0.01, 1, 0.005)


def test_compare_with_one_arm_has_nothing_to_say():
  assert stats.compare(make_scores([[1], [2]]), 1) == []


def test_compare_refuses_resamples_that_could_decide_nothing():
  num_seeds = stats.MAX_EXACT + 1
  values = np.random.default_rng(0).normal(size=(num_seeds, 3))
  with pytest.raises(InputError, match="give at least 60"):
    stats.compare(make_scores(values), 0.1, num_resamples=59)
  stats.compare(make_scores(values), 0.1, num_resamples=60)
  stats.compare(make_scores(values[:-1]), 0.1, num_resamples=59)  # exact: not used


# sentence and to_json


def test_sentence_says_by_how_much():
  verdict = stats.Verdict(
    metric="test_accuracy",
    arm_a="glorot_uniform",
    arm_b="random_normal",
    num_pairs=14,
    mean_difference=0.00215,
    ci_low=0.00121,
    ci_high=0.00309,
    p_value=0.001,
    p_holm=0.003,
    p_beyond_margin=0.6,
    p_equivalence=0.6,
    margin=0.002,
    verdict="better",
    beyond_margin=False,
    seeds_needed=None,
    num_diverged_a=0,
    num_diverged_b=2,
    num_seeds=16,
  )
  better = (
    "glorot_uniform is better than random_normal in test_accuracy, whether by more than the margin "
    "of 0.002 is open (difference 0.0012 to 0.0031, 95% interval over 14 pairs; Holm-corrected "
    "p = 0.003)"
  )
  diverged = "; random_normal diverged in 2 of 16 seeds, which are left out of the pairs"
  assert stats.sentence(verdict) == better + diverged
  converged = dataclasses.replace(verdict, num_diverged_b=0)
  assert stats.sentence(converged) == better
  points = stats.sentence(converged, unit="points", scale=100)
  assert "the margin of 0.2 points is open (difference 0.12 to 0.31 points, 95%" in points
  worse = dataclasses.replace(verdict, verdict="worse", beyond_margin=True)
  assert "worse than random_normal in test_accuracy, by more than the margin of 0.002 (" in (
    stats.sentence(worse)
  )
  both = dataclasses.replace(verdict, num_diverged_a=1)
  assert "; glorot_uniform diverged in 1 of 16 seeds and random_normal" in stats.sentence(both)
  sure = dataclasses.replace(verdict, p_holm=1e-5)
  assert "Holm-corrected p < 0.001" in stats.sentence(sure)


def test_sentence_of_every_verdict():
  def say(differences, margin, **kwargs):
    return stats.sentence(only(stats.compare(from_differences(differences), margin)), **kwargs)

  half = scipy.stats.t.ppf(0.975, 15) / math.sqrt(16)
  assert half == pytest.approx(0.533, abs=5e-4)
  assert say(standardized(16, 3), 10, unit="s") == (
    "a and b are equivalent in accuracy within 10 s "
    "(difference 2.5 to 3.5 s, 95% interval over 16 pairs; equivalence p < 0.001)"
  )
  assert say(standardized(8, 0.4), 0.5) == (
    "undecided between a and b in accuracy: a new run of about 37 other seeds would be needed "
    "(difference -0.4 to 1.2, 95% interval over 8 pairs; Holm-corrected p = 0.32; margin 0.5)"
  )
  assert "a new run of 1,000,000 seeds or more would be needed (" in say(standardized(8, 0), 1e-6)
  assert "about 16 seeds had an 80% chance to decide it, and these 16 did not (" in say(
    standardized(16, 0.5), 0.9
  )
  for differences in ([1.0], standardized(5, 0.5)):
    assert say(differences, 1) == (
      f"too few seeds ({len(differences)}) to compare a with b in accuracy: no claim; "
      "at least 6 are needed"
    )
  assert say([NAN], 1) == (
    "too few seeds (0) to compare a with b in accuracy: no claim; at least 6 are needed; "
    "a diverged in 1 of 1 seeds, which are left out of the pairs"
  )


def test_sentence_of_equal_differences_gives_no_interval():
  """0.05^(1/16) = 0.829: were fewer seeds alike, 16 of 16 would be so in less than 5% of runs."""
  text = stats.sentence(only(stats.compare(from_differences(np.zeros(16)), 0.1)))
  assert "(difference 0 in all 16 pairs, so in 83% of seeds or more with 95% confidence;" in text
  text = stats.sentence(only(stats.compare(from_differences(np.full(8, 1e-12)), 1e-13)))
  assert "(difference 1e-12 in all 8 pairs, so in 69% of seeds" in text


def test_to_json_is_valid_json():
  verdict = only(stats.compare(from_differences([1.0, NAN]), 1))
  record = json.loads(json.dumps(stats.to_json(verdict), allow_nan=False))
  assert list(record) == [field.name for field in dataclasses.fields(stats.Verdict)]
  assert (record["mean_difference"], record["num_pairs"]) == (1.0, 1)
  assert [name for name, x in record.items() if x is None] == [
    "ci_low", "ci_high", "p_value", "p_holm", "p_beyond_margin", "p_equivalence", "budget",
    "diverged_as", "without_diverged", "new_examples", "floor", "median_unbiased",
    "may_be_best",
  ]  # fmt: skip
  summaries = stats.summarize(make_scores([[1.0, NAN]]))
  one, none = json.loads(json.dumps([stats.to_json(s) for s in summaries], allow_nan=False))
  assert [name for name, x in one.items() if x is None] == ["std", "ci_low", "ci_high"]
  assert [x for x in none.values() if x is not None] == ["b", 0, 1]


# Laws. Values are thousandths, as accuracies are, so that ties and equal scores are common.


@st.composite
def populations(draw):
  """Values [S, 3] in which every verdict occurs, with or without diverged members."""
  num_seeds = draw(st.sampled_from([1, 2, 6, 7, 8, 10, 16, 18]))
  spread = draw(st.sampled_from([0, 1, 3, 30]))
  diverged = draw(st.sampled_from([0, 0, 0.1, 0.4]))
  offsets = draw(st.tuples(*[st.sampled_from([0, 0, 2, 20])] * 3))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  values = (rng.integers(-spread, spread + 1, size=(num_seeds, 3)) + offsets) / 1000
  values[rng.random(values.shape) < diverged] = NAN
  return values  # [S, 3]


margins = st.sampled_from([0.001, 0.005, 0.02, 0.1])
ROUNDING = {"rel": 1e-7, "abs": 1e-12}  # of the scores, whose differences are 0.001 or more
OPPOSITE = {"better": "worse", "worse": "better"}


def by_pair(verdicts):
  return {(v.arm_a, v.arm_b): v for v in verdicts}


@given(populations(), margins)
@law
def test_law_swapping_arms_mirrors_the_verdict(values, margin):
  forth = by_pair(stats.compare(make_scores(values), margin))
  back = by_pair(stats.compare(make_scores(values[:, ::-1], ("c", "b", "a")), margin))
  for (a, b), verdict in forth.items():
    mirrored = dataclasses.replace(
      back[b, a],
      arm_a=a,
      arm_b=b,
      mean_difference=-back[b, a].mean_difference,
      ci_low=-back[b, a].ci_high,
      ci_high=-back[b, a].ci_low,
      verdict=OPPOSITE.get(back[b, a].verdict, back[b, a].verdict),
      num_diverged_a=back[b, a].num_diverged_b,
      num_diverged_b=back[b, a].num_diverged_a,
    )
    assert_alike(mirrored, verdict, **ROUNDING)


@given(populations(), margins)
@law
def test_law_the_metrics_direction_swaps_better_and_worse_only(values, margin):
  higher = stats.compare(make_scores(values), margin)
  lower = stats.compare(make_scores(values, higher_is_better=False), margin)
  for h, w in zip(higher, lower, strict=True):
    assert_alike(dataclasses.replace(w, verdict=OPPOSITE.get(w.verdict, w.verdict)), h)


@given(populations(), margins, st.randoms(use_true_random=False))
@law
def test_law_the_order_of_seeds_is_no_matter(values, margin, random):
  order = list(range(len(values)))
  random.shuffle(order)
  expected = stats.compare(make_scores(values), margin)
  actual = stats.compare(make_scores(values[order]), margin)
  for pair in zip(actual, expected, strict=True):
    assert_alike(*pair, **ROUNDING)


@given(populations(), margins, st.integers(-2000, 2000))
@law
def test_law_a_constant_added_to_all_arms_is_no_matter(values, margin, constant):
  expected = stats.compare(make_scores(values), margin)
  actual = stats.compare(make_scores(values + constant / 1000), margin)
  for pair in zip(actual, expected, strict=True):
    assert_alike(*pair, **ROUNDING)


@given(populations(), margins, st.sampled_from([1e-6, 0.3, 100.0, 1e9]))
@law
def test_law_the_unit_is_no_matter(values, margin, unit):
  expected = stats.compare(make_scores(values), margin)
  actual = stats.compare(make_scores(values * unit), margin * unit)
  for v, w in zip(actual, expected, strict=True):
    names = ("mean_difference", "ci_low", "ci_high", "margin")
    rescaled = {name: getattr(v, name) / unit for name in names}
    assert_alike(dataclasses.replace(v, **rescaled), w, **ROUNDING)


def test_law_p_values_and_verdicts_are_consistent():
  seen = set()

  @given(populations(), margins)
  @law
  def check(values, margin):
    for v in stats.compare(make_scores(values), margin):
      diverged = v.num_diverged_a + v.num_diverged_b > 0
      alike = v.num_pairs >= 16 and v.p_equivalence < 0.05
      assert v.num_pairs < 7 or 0 < v.p_value <= v.p_holm <= 1
      if v.num_pairs < 7:
        expected = "too few seeds"
      elif alike and not diverged:
        expected = "equivalent"
      elif v.p_holm < 0.05:
        expected = "better" if v.mean_difference > 0 else "worse"
      else:
        expected = "undecided"
      assert v.verdict == expected
      decided = v.verdict in ("better", "worse", "equivalent")
      assert v.seeds_needed is None if decided or (alike and diverged) else v.seeds_needed >= 7
      assert v.verdict in ("better", "worse") or not v.beyond_margin
      seen.add(v.verdict)

  check()
  assert seen == {"better", "worse", "equivalent", "undecided", "too few seeds"}


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


def test_rate_of_any_false_verdict_among_three_arms():
  rng = np.random.default_rng(2)
  num_trials = 600
  false_verdicts = 0
  for _ in range(num_trials):
    values = rng.normal(size=(9, 1)) + 0.1 * rng.normal(size=(9, 3))  # draws shared by the arms
    verdicts = {v.verdict for v in stats.compare(make_scores(values), margin=1e-4)}
    assert verdicts <= {"better", "worse", "undecided"}
    false_verdicts += bool(verdicts & {"better", "worse"})
  assert_rate(false_verdicts, num_trials, 0.025, 0.05)  # without Holm it would be 0.12


def test_coverage_of_the_interval():
  # Every arm is an experiment of its own, with the true mean 3.
  num_trials = 4000
  values = np.random.default_rng(3).normal(3, 2, size=(5, num_trials))
  summaries = stats.summarize(make_scores(values, tuple(map(str, range(num_trials)))))
  covered = sum(s.ci_low < 3 < s.ci_high for s in summaries)
  assert_rate(covered, num_trials, 0.95)


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


def test_rate_of_any_false_equivalence_among_ten_arms():
  """Two clusters of five arms, exactly the margin apart: 25 chances to be wrong."""
  rng = np.random.default_rng(7)
  num_trials = 400
  cluster = np.repeat([0.0, 1.0], 5)
  wrong = 0
  for _ in range(num_trials):
    values = cluster + 0.35 * rng.normal(size=(16, 10))
    differences = (values[:, :5, None] - values[:, None, 5:]).reshape(16, 25)
    wrong += any(min(1, 25 * stats.tost(d, 1.0)) < 0.05 for d in differences.T)
  assert_rate(wrong, num_trials, 0.0, 0.05)  # uncorrected it is 0.5


def test_rate_of_false_equivalence_when_a_seed_in_ten_collapses():
  """The mean difference is 1.5 margins; sixteen seeds do without a collapse in 19% of runs."""
  rng = np.random.default_rng(8)
  collapses = 15.0 * (rng.random((500, 16)) < 0.1) + 0.1 * rng.normal(size=(500, 16))
  wrong = sum(
    only(stats.compare(from_differences(x), 1.0)).verdict == "equivalent" for x in collapses
  )
  assert_rate(wrong, 500, 0.9**16)
  fifteen = [only(stats.compare(from_differences(x[:15]), 1.0)).verdict for x in collapses]
  assert "equivalent" not in fifteen


# --- Many arms ---


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 6))
def test_holm_of_a_part_is_that_of_all_with_the_others_at_one(p_values, others):
  whole = stats.holm([*p_values, *[1.0] * others])
  part = stats.holm(p_values, len(p_values) + others)
  np.testing.assert_array_equal(part, whole[: len(p_values)])


def test_the_best_of_many_is_compared_as_one_of_all_pairs():
  """Verdicts with the best are those over all pairs, or weaker: fewer p-values are below one."""
  values = np.random.default_rng(0).normal(np.linspace(0, 3, 6), 1, size=(16, 6))
  scores = make_scores(values, tuple("abcdef"))
  every = {(v.arm_a, v.arm_b): v for v in stats.compare(scores, 0.5)}
  best = stats.compare_with_best(scores, 0.5)
  assert [v.arm_a for v in best] == list("abcde")
  for v in best:
    of_all = every[v.arm_a, v.arm_b]
    assert (v.arm_b, v.p_value) == ("f", of_all.p_value)
    assert v.p_holm >= of_all.p_holm
    assert v.p_equivalence == of_all.p_equivalence
  assert [v.may_be_best for v in best] == [arm in stats.may_be_best(scores) for arm in "abcde"]


def test_which_arms_may_be_the_best_by_hand():
  """Of 8 seeds that agree, p = 2/256: below 0.05 / 2, and not below 0.05 / 7."""
  gaps = np.zeros((8, 3)) - [0, 1, 2] - 0.1 * np.arange(8)[:, None] * [0, 1, 1]
  assert stats.may_be_best(make_scores(gaps, tuple("abc"))) == ("a",)
  assert stats.may_be_best(make_scores(np.tile(gaps, 3)[:, :8], tuple("abcdefgh"))) == tuple(
    "adgbehcf"
  )
  lower = dataclasses.replace(make_scores(gaps, tuple("abc")), higher_is_better=False)
  assert stats.may_be_best(lower) == ("c",)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_an_arm_that_is_better_on_the_common_seeds_may_be_the_best(higher_is_better):
  """Arm a has the best mean because it diverged where scores are bad, and these are left out."""
  values = np.array([[0.9, 0.91]] * 8 + [[np.nan, 0.1]] * 4) + 1e-3 * np.arange(12)[:, None]
  scores = make_scores(values if higher_is_better else -values, tuple("ab"))
  scores = dataclasses.replace(scores, higher_is_better=higher_is_better)
  assert stats.may_be_best(scores) == ("a", "b")
  (verdict,) = stats.compare_with_best(scores, 0.002)
  assert (verdict.arm_a, verdict.verdict, verdict.may_be_best) == ("b", "better", True)


@pytest.mark.parametrize("means", [np.zeros(14), np.r_[0, np.full(13, -0.1)]], ids=["equal", "one"])
def test_rate_of_errors_of_the_best_of_many(means, monkeypatch):
  """The best is chosen by the data that compare it: any wrong verdict, or the best left out."""
  monkeypatch.setattr("jaxdl.stats.verdicts.seeds_for_power", lambda *_: 0)  # which takes long
  rng, num = np.random.default_rng(0), 150
  wrong = missing = 0
  for _ in range(num):
    scores = make_scores(rng.normal(means, 1, size=(13, 14)), tuple(f"arm {i}" for i in range(14)))
    truth = dict(zip(scores.arms, means, strict=True))
    verdicts = stats.compare_with_best(scores, 0.05)
    wrong += any(v.verdict == "worse" and truth[v.arm_a] >= truth[v.arm_b] for v in verdicts)
    missing += verdicts[0].arm_b != "arm 0" and not verdicts[0].may_be_best
  assert max(wrong, missing) <= 0.05 * num + 2.5 * (0.05 * 0.95 * num) ** 0.5


def test_diverged_runs_count_when_the_best_is_chosen():
  values = np.array([[0.5, 0.9]] + 7 * [[0.5, NAN]])
  scores = dataclasses.replace(make_scores(values), diverged_as=0.1)
  assert scores.best_first == ("a", "b")
  (verdict,) = stats.compare_with_best(scores, 0.05)
  assert (verdict.arm_a, verdict.without_diverged.arm_a) == ("b", "b")
