"""Looks at a level that holds, and bets: published bounds, exact enumeration, laws, error rates."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from made_up_scores import from_differences, make_scores

from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.stats import sequential

NAN = math.nan


def every_pattern(n):
  return np.array(list(itertools.product((1, -1), repeat=n)), dtype=np.int8)  # [2^n, n]


def alternating(n, mean, std=1.0):
  """Differences of which any even number from the first on has this mean and nearly this std."""
  return mean + std * (-1.0) ** np.arange(n)


# Looks and their levels


def test_looks():
  assert stats.looks(16) == (8, 16)
  assert stats.looks(20) == (8, 16, 20)
  assert stats.looks(64) == tuple(range(8, 65, 8))
  with pytest.raises(InputError, match="the budget of seeds must be an integer >= 16, not 15"):
    stats.looks(15)


def test_one_look_has_the_whole_level():
  assert stats.nominal_levels(0.05, (1.0,)) == pytest.approx(0.05)


def test_levels_of_pocock_type_as_published():
  """Five looks, one-sided 0.025: 2.438, 2.427, 2.410, 2.397, 2.386 (Jennison & Turnbull, 2000)."""
  levels = stats.nominal_levels(0.025, (0.2, 0.4, 0.6, 0.8, 1.0))
  expected = [2.438, 2.427, 2.410, 2.397, 2.386]
  assert scipy.stats.norm.isf(levels) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 0.0005])
def test_levels_of_two_looks_by_the_bivariate_normal_distribution(alpha):
  """P(Z1 < c1, Z2 >= c2) is what the second look spends; the correlation is sqrt(t1 / t2)."""
  levels = stats.nominal_levels(alpha, (0.25, 1.0))
  c1, c2 = scipy.stats.norm.isf(levels)
  both_below = scipy.stats.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([c1, c2])
  assert 1 - both_below == pytest.approx(alpha, rel=1e-4)
  assert levels[0] == pytest.approx(alpha * math.log(1 + (math.e - 1) / 4))


# The sign-flip test at every look


def first_look(magnitudes, signs, looks, levels):
  """The look that rejects when these signs are observed, all patterns being the possible ones."""
  others = every_pattern(len(magnitudes))
  others = others[(others != signs).any(axis=1)]
  return sequential.sign_flip_looks(signs * np.array(magnitudes, float), looks, levels, others)


@given(
  st.lists(st.integers(0, 3), min_size=6, max_size=6),
  st.lists(st.floats(0, 0.5), min_size=2, max_size=2).map(sorted),
)
def test_law_no_look_spends_more_than_its_share_of_all_patterns(magnitudes, levels):
  """Exact: whichever pattern is the observed one; integers, so that sums tie."""
  found = [first_look(magnitudes, signs, (3, 6), levels) for signs in every_pattern(6)]
  for look, level in enumerate(levels):
    rejected = sum(f is not None and f <= look for f in found)
    assert rejected <= level * 2**6 + 1e-9


@given(st.integers(0, 2**32 - 1), st.floats(0, 1.5), st.booleans())
def test_law_looks_that_cannot_reject_are_skipped_without_a_trace(seed, effect, has_ties):
  """A few patterns show it, or none are asked."""
  rng = np.random.default_rng(seed)
  differences = rng.normal(effect, 1, 32)
  if has_ties:
    differences = differences.round()
  signs = sequential.sign_patterns(999, 32, 0)
  looks, levels = (8, 16, 24, 32), (0.01, 0.02, 0.04, 0.1)
  found = []
  for few in (0, 50, 999):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(sequential, "_FEW_PATTERNS", few)
      found.append(sequential.sign_flip_looks(differences, looks, levels, signs))
  assert found[0] == found[1] == found[2]


def test_sign_flip_looks_by_hand():
  """Four equal magnitudes, looks at 2 and 4. Of 16 patterns 8 have |sum| 2 at the first look.

  A level of 0.5 takes these 8 and leaves nothing for the second look. A level of 0.4 takes none of
  them; up to the second look 0.5 has 8, and takes the 2 with |sum| 4, not the 8 with |sum| 2.
  """
  ones = np.ones(4)
  together, apart, late = np.array([[1, 1, 1, 1], [1, -1, 1, 1], [1, 1, 1, -1]])
  assert first_look(ones, together, (2, 4), (0.5, 0.5)) == 0
  assert first_look(ones, apart, (2, 4), (0.5, 0.5)) is None
  assert first_look(ones, late, (2, 4), (0.4, 0.5)) is None
  assert first_look(ones, together, (2, 4), (0.4, 0.5)) == 1
  assert first_look(ones, together, (2, 4), (0.1, 0.1)) is None


def test_eight_seeds_of_one_sign_decide_one_pair_and_not_three():
  """The smallest p-value, 2 / 2^8, lies between 0.05 ln(1 + (e - 1) / 8) and a third of that."""
  differences = alternating(16, mean=3)
  (one,) = stats.compare_looks(from_differences(differences), 0.1, 64)
  assert (one.verdict, one.num_seeds) == ("better", 8)
  three = stats.compare_looks(from_differences(differences, 2 * differences), 0.1, 64)
  assert [(v.verdict, v.num_seeds) for v in three] == [
    ("worse", 16), ("better", 16), ("better", 16)
  ]  # fmt: skip


# compare_looks


def test_the_interval_has_the_level_of_its_look():
  differences = np.random.default_rng(0).normal(size=20)
  (verdict,) = stats.compare_looks(from_differences(differences), 0.1, 64)
  assert (verdict.verdict, verdict.num_seeds) == ("undecided", 16)  # four wait for the next look
  seen = differences[:16]
  level = stats.nominal_levels(0.025, tuple(k / 8 for k in range(1, 9)))[1]
  t_test = scipy.stats.ttest_1samp(seen, 0).confidence_interval(1 - 2 * level)
  assert (verdict.ci_low, verdict.ci_high) == pytest.approx(tuple(t_test))
  assert verdict.mean_difference == pytest.approx(seen.mean())
  assert (verdict.confidence, verdict.design, verdict.budget) == (0.95, "group-sequential", 64)


def test_equivalence_needs_sixteen_seeds_and_the_level_of_its_look():
  """At 16 seeds t = 15 m / std, and the bound is 2.56, for a margin of 0.66 std and no effect."""
  spread = np.std(alternating(16, 0), ddof=1)
  for margin, expected in ((0.65, "equivalent"), (0.63, "undecided")):
    scores = from_differences(alternating(16, 0) / spread)
    (verdict,) = stats.compare_looks(scores, margin, 64)
    assert (verdict.verdict, verdict.num_seeds) == (expected, 16)
  (verdict,) = stats.compare_looks(from_differences(np.zeros(8)), 1.0, 64)
  assert verdict.verdict == "undecided"


def test_arms_that_diverged_are_not_alike_and_their_pairs_stay_exact():
  differences = alternating(64, 0, std=0.1)
  differences[3] = NAN
  (verdict,) = stats.compare_looks(from_differences(differences), 1.0, 64)
  assert (verdict.verdict, verdict.num_pairs, verdict.num_diverged_a) == ("undecided", 63, 1)
  differences += 1
  (verdict,) = stats.compare_looks(from_differences(differences), 1.0, 64)
  assert (verdict.verdict, verdict.num_pairs, verdict.num_seeds) == ("better", 15, 16)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0]))
def test_law_a_decided_pair_stays_as_it_was(seed, effect):
  """Also if its arms train no further, and have no scores from then on."""
  columns = np.random.default_rng(seed).normal([[0.0], [effect]], size=(2, 32))
  early = stats.compare_looks(
    from_differences(*columns[:, :16]), 1.0, 32, num_resamples=999, reference="c"
  )
  for pair, verdict in enumerate(early):
    if verdict.verdict != "undecided":
      columns[pair, 16:] = NAN
  is_open = [verdict.verdict == "undecided" for verdict in early]
  late = stats.compare_looks(
    # What is not trained did not diverge, whatever that counts as.
    replace(
      from_differences(*columns),
      num_trained=tuple(32 if going_on else 16 for going_on in (*is_open, True)),
      diverged_as=5.0,
    ),
    1.0,
    32,
    num_resamples=999,
    reference="c",
  )
  for before, after in zip(early, late, strict=True):
    if before.verdict != "undecided":
      assert stats.to_json(after) == stats.to_json(before)


def test_what_diverged_runs_count_as_does_not_depend_on_later_seeds():
  """So a pair that was decided stays so, whatever worse scores come."""
  columns = np.random.default_rng(0).normal([[0.0], [2.0]], size=(2, 32))
  columns[0, 5] = NAN
  columns[1, 30] = -100.0

  def compare(size):
    scores = make_scores(columns[:, :size].T)
    so_far = stats.worst_so_far(scores.values, higher_is_better=True)
    (verdict,) = stats.compare_looks(replace(scores, diverged_as=so_far), 0.1, 32)
    return verdict

  assert compare(16).verdict == "worse"
  assert stats.to_json(compare(32)) == stats.to_json(compare(16))


def test_the_worst_so_far_by_hand():
  values = np.array([[NAN, NAN], [3, 5], [NAN, 4], [1, 9.0]])
  assert stats.worst_so_far(values, higher_is_better=True).tolist() == [3, 3, 3, 1]
  assert stats.worst_so_far(values, higher_is_better=False).tolist() == [5, 5, 5, 9]
  assert stats.worst_so_far(values[:1], higher_is_better=True) is None


def test_the_direction_of_the_metric_swaps_better_and_worse():
  differences = alternating(16, 3)
  (verdict,) = stats.compare_looks(from_differences(differences, higher_is_better=False), 0.1, 64)
  assert (verdict.verdict, verdict.beyond_margin) == ("worse", True)


def test_the_estimate_of_a_first_look_is_nearly_its_mean_and_of_a_later_one_smaller():
  rng = np.random.default_rng(0)
  signs = sequential.sign_patterns(999, 64, 0)
  levels = stats.nominal_levels(0.025, tuple(k / 8 for k in range(1, 9)))
  differences = rng.normal(1, 1, 8)
  first = stats.median_unbiased(differences, (8,), levels[:1], signs)
  assert first == pytest.approx(differences.mean(), abs=0.05)
  later = alternating(32, mean=0.5)
  estimate = stats.median_unbiased(later, (8, 16, 24, 32), levels[:4], signs)
  assert 0 < estimate < later.mean() - 0.01
  mirrored = stats.median_unbiased(-later, (8, 16, 24, 32), levels[:4], signs)
  assert mirrored == pytest.approx(-estimate)


def test_the_estimate_is_as_often_too_large_as_too_small():
  """Where the mean of 64% of runs is above the true difference, of half a standard deviation."""
  rng = np.random.default_rng(0)
  above = {"mean": 0, "estimate": 0}
  decided = 0
  for _ in range(120):
    scores = from_differences(rng.normal(0.5, 1, 64))
    (verdict,) = stats.compare_looks(scores, 1e-3, 64, num_resamples=999)
    if verdict.median_unbiased is not None:
      decided += 1
      above["mean"] += verdict.mean_difference > 0.5
      above["estimate"] += verdict.median_unbiased > 0.5
  assert decided > 100
  assert above["estimate"] < above["mean"]
  assert abs(above["estimate"] / decided - 0.5) < 0.15  # three standard errors


def test_undecided_arms():
  scores = from_differences(alternating(16, 20), alternating(16, 0, std=6))
  verdicts = stats.compare_looks(scores, 0.1, 64)
  assert [v.verdict for v in verdicts] == ["better", "better", "undecided"]
  assert stats.undecided_arms(verdicts) == ("b", "c")


def test_before_the_first_look_there_is_no_claim_and_after_the_last_no_seed():
  (verdict,) = stats.compare_looks(from_differences(np.zeros(7)), 1.0, 16)
  assert (verdict.verdict, verdict.seeds_needed) == ("too few seeds", 8)
  assert stats.undecided_arms([verdict]) == ("a", "b")
  with pytest.raises(InputError, match="the budget is 16 seeds, and there are 17"):
    stats.compare_looks(from_differences(np.zeros(17)), 1.0, 16)


def test_sentences_say_the_design_the_look_and_the_bias():
  (verdict,) = stats.compare_looks(from_differences(alternating(8, 3)), 0.1, 64)
  text = stats.sentence(verdict)
  assert (
    "group-sequential test, 8 of at most 64 seeds; decided early, so the mean is biased" in text
  )
  assert "95% interval for all pairs of arms and looks over 8 pairs" in text
  (verdict,) = stats.compare_looks(from_differences(alternating(16, 0)), 0.1, 16)
  text = stats.sentence(verdict)
  assert text.startswith("undecided between a and b in accuracy: after all 16 of 16 seeds (")
  assert "biased" not in text


# The betting test


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_law_the_evidence_is_a_martingale_given_the_magnitudes(magnitudes):
  """The mean over all sign patterns is 1 at every n; so few patterns ever reach 1 / alpha."""
  patterns = every_pattern(len(magnitudes)) * np.array(magnitudes)
  values = np.exp([stats.log_e_values(d) for d in patterns])  # [2^n, n]
  assert values.mean(axis=0) == pytest.approx(np.ones(len(magnitudes)))
  for alpha in (0.5, 0.05):
    assert (values.max(axis=1) >= 1 / alpha).mean() <= alpha


def test_evidence_of_one_difference_by_hand():
  strengths = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
  expected = np.mean([2 / (1 + math.exp(-2 * k)) for k in strengths])
  assert np.exp(stats.log_e_values([7.0])) == pytest.approx(expected)
  assert stats.log_e_values([0.0, 0.0]) == pytest.approx([0, 0])


def test_anytime_verdicts():
  def compare(differences, margin):
    (verdict,) = stats.compare_anytime(from_differences(differences), margin)
    return verdict

  better = compare(alternating(16, 3), 0.1)
  assert (better.verdict, better.beyond_margin, better.design) == ("better", True, "betting")
  assert better.p_holm == pytest.approx(2 * math.exp(-stats.log_e_values(alternating(16, 3)).max()))
  assert compare(-alternating(16, 3), 0.1).verdict == "worse"
  assert compare(alternating(16, 0), 5.0).verdict == "equivalent"
  assert compare(alternating(15, 0), 5.0).verdict == "undecided"  # fewer than 16 seeds
  diverged = np.append(alternating(16, 0), NAN)
  assert compare(diverged, 5.0).verdict == "undecided"
  text = stats.sentence(compare(alternating(16, 0), 0.1))
  assert "after 16 seeds, to which more may be added" in text
  assert "betting test" in text


def test_the_interval_of_bets_ends_where_the_evidence_does():
  differences = np.random.default_rng(1).normal(1, 1, 40)
  (verdict,) = stats.compare_anytime(from_differences(differences), 0.1)
  for end in (differences - verdict.ci_low, verdict.ci_high - differences):
    assert stats.log_e_values(end).max() == pytest.approx(math.log(2 / 0.05), rel=1e-6)
  assert verdict.ci_low < differences.mean() < verdict.ci_high
  (few,) = stats.compare_anytime(from_differences(differences[:4]), 0.1)
  assert math.isnan(few.ci_low)  # 2^4 / 6 is less than 2 / 0.05


# Error rates; `experiments/measure_sequential.py` measures them with more repetitions.


@pytest.mark.parametrize("name", ["normal", "t3", "counts"])
def test_rate_of_wrong_verdicts(name):
  """Three arms, two of them equal, the third a margin apart: at most 5%, whatever the design."""
  rng = np.random.default_rng(0)
  draw = {
    "normal": lambda size: rng.normal(size=size),
    "t3": lambda size: rng.standard_t(3, size=size) / math.sqrt(3),
    "counts": lambda size: rng.binomial(89, 0.96, size=size) / math.sqrt(89 * 0.96 * 0.04),
  }[name]
  num_trials, wrong = 150, {"looks": 0, "bets": 0}
  for _ in range(num_trials):
    scores = make_scores(draw((32, 3)) / math.sqrt(2) + [0, 0, 1])
    verdicts = {
      "looks": stats.compare_looks(scores, 1.0, 32, num_resamples=1999),
      "bets": stats.compare_anytime(scores, 1.0),
    }
    right = {("a", "b"): "equivalent", ("a", "c"): "worse", ("b", "c"): "worse"}
    for design, found in verdicts.items():
      wrong[design] += any(v.verdict not in ("undecided", right[v.arm_a, v.arm_b]) for v in found)
  for count in wrong.values():
    assert count <= scipy.stats.binom.isf(scipy.stats.norm.sf(4), num_trials, 0.05)
