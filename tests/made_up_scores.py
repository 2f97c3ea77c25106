"""Made-up scores of a few arms, and how results on them are compared with what is expected."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from jaxdl import stats


def make_scores(values, arms=None, higher_is_better=True, metric="accuracy", overlap=None):
  """Scores [S, A] of the arms a, b, ..., unless these have other names."""
  values = np.asarray(values, dtype=np.float64)
  return stats.Scores(
    metric=metric,
    values=values,
    seeds=tuple(range(len(values))),
    arms=arms or tuple("abcdefghijkl"[: values.shape[1]]),
    axes=stats.AXES,
    higher_is_better=higher_is_better,
    overlap=overlap,
  )


def make_verdict(**settings):
  """A verdict of 9 pairs without a difference, unless these settings say otherwise."""
  given = {
    "metric": "test_accuracy",
    "arm_a": "a",
    "arm_b": "b",
    "num_pairs": 9,
    "mean_difference": 0.0,
    "ci_low": 0.0,
    "ci_high": 0.0,
    "p_value": 1.0,
    "p_holm": 1.0,
    "p_beyond_margin": 1.0,
    "p_equivalence": 1.0,
    "margin": 0.05,
    "verdict": "undecided",
    "beyond_margin": False,
    "seeds_needed": None,
    "num_diverged_a": 0,
    "num_diverged_b": 0,
    "num_seeds": 9,
  }
  return stats.Verdict(**{**given, **settings})


def from_differences(*columns, **settings):
  """Arms a, b, ... and last a constant one, of which they differ by these columns."""
  return make_scores(np.column_stack([*columns, np.zeros(len(columns[0]))]), **settings)


def standardized(n, mean, std=1.0):
  """Differences [n] with exactly this mean and std."""
  x = np.linspace(-1, 1, n)
  return mean + std * x / np.std(x, ddof=1)


def only(verdicts):
  (verdict,) = verdicts
  return verdict


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
