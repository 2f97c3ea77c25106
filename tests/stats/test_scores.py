"""Scores and their summary: refusals, numbers by hand, and the coverage of the interval."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from made_up_scores import assert_alike, assert_rate, make_scores

from jaxdl import stats
from jaxdl.errors import InputError

NAN = math.nan


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


def test_coverage_of_the_interval():
  # Every arm is an experiment of its own, with the true mean 3.
  num_trials = 4000
  values = np.random.default_rng(3).normal(3, 2, size=(5, num_trials))
  summaries = stats.summarize(make_scores(values, tuple(map(str, range(num_trials)))))
  covered = sum(s.ci_low < 3 < s.ci_high for s in summaries)
  assert_rate(covered, num_trials, 0.95)
