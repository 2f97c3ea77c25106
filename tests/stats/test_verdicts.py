"""Verdicts over seeds: numbers by hand, laws, and simulated error rates."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scores import (
  assert_alike,
  assert_rate,
  from_differences,
  make_scores,
  only,
  standardized,
)
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from jaxdl import stats
from jaxdl.errors import InputError

NAN = math.nan
law = settings(deadline=None, derandomize=True, max_examples=150)


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
