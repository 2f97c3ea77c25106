"""Seeds that are overlapping splits: the corrected t test by hand, by laws, and its level."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from made_up_scores import from_differences

from jaxdl import stats
from jaxdl.errors import InputError


def test_the_corrected_test_by_hand():
  """Mean 2, variance 2.5, n = 5, overlap 1/4: the standard error is sqrt(2.5 (1/5 + 1/4))."""
  differences = np.array([0.0, 1, 2, 3, 4])
  t = 2 / math.sqrt(2.5 * 0.45)
  assert stats.corrected_test(differences, 0.25) == pytest.approx(2 * scipy.stats.t.sf(t, 4))
  t = (3 - 2) / math.sqrt(2.5 * 0.45)
  assert stats.corrected_tost(differences, 3.0, 0.25) == pytest.approx(scipy.stats.t.sf(t, 4))
  for equal in (np.zeros(8), np.ones(8), np.ones(1)):
    assert stats.corrected_test(equal, 0.25) == stats.corrected_tost(equal, 3.0, 0.25) == 1


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_law_without_overlap_it_is_student_s_test(seed, mean):
  differences = np.random.default_rng(seed).normal(mean, 1, 12)
  expected = scipy.stats.ttest_1samp(differences, 0).pvalue
  assert stats.corrected_test(differences, 0.0) == pytest.approx(expected)
  assert stats.corrected_test(differences, 0.5) >= stats.corrected_test(differences, 0.1)


def test_a_verdict_over_splits_says_so_and_keeps_a_floor():
  differences = np.random.default_rng(0).normal(1, 1, 20)
  (verdict,) = stats.compare(from_differences(differences, overlap=0.25), 0.5)
  s = differences.std(ddof=1)
  half = scipy.stats.t.ppf(0.975, 19) * s * math.sqrt(1 / 20 + 0.25)
  interval = differences.mean() - half, differences.mean() + half
  assert (verdict.ci_low, verdict.ci_high) == pytest.approx(interval)
  assert verdict.floor == pytest.approx(scipy.stats.norm.ppf(0.975) * s * 0.5)
  assert verdict.p_value == stats.corrected_test(differences, 0.25)
  assert (verdict.design, verdict.verdict) == (stats.RESAMPLED, "undecided")
  text = stats.sentence(verdict)
  assert "over 20 splits that overlap, and ± " in text
  assert "t test corrected for overlap" in text
  # As independent seeds they would differ.
  (independent,) = stats.compare(from_differences(differences), 0.5)
  assert independent.verdict == "better"
  assert independent.floor is None
  summary, _ = stats.summarize(from_differences(differences, overlap=0.25))
  assert (summary.ci_low, summary.ci_high) == pytest.approx(interval)


def test_where_no_number_of_splits_would_do_the_verdict_says_so():
  differences = np.random.default_rng(0).normal(0.5, 1, 20)
  (verdict,) = stats.compare(from_differences(differences, overlap=0.25), 0.1)
  assert verdict.seeds_needed == stats.MAX_SEEDS_NEEDED
  assert "splits of these examples would not decide it, however many" in stats.sentence(verdict)
  clear = from_differences(20 + differences, overlap=0.25)
  (verdict,) = stats.compare(clear, 0.1)
  assert (verdict.verdict, verdict.beyond_margin) == ("better", True)


def test_looks_and_bets_refuse_splits():
  scores = from_differences(np.arange(16.0), overlap=0.25)
  with pytest.raises(InputError, match="seeds that are splits of the same examples are not indep"):
    stats.compare_looks(scores, 1.0, 16)
  with pytest.raises(InputError, match="seeds that are splits of the same examples are not indep"):
    stats.compare_anytime(scores, 1.0)


def test_arms_that_share_no_split_have_no_overlap():
  """Else they would be compared as independent samples, as if there were none."""
  with pytest.raises(ValueError, match="must be paired"):
    replace(from_differences(np.arange(16.0), overlap=0.25), paired=False)


def test_level_where_scores_of_splits_are_as_correlated_as_is_assumed():
  """Correlation num_test / (num_test + num_train) = 1/5, and 1/4 the overlap."""
  rng = np.random.default_rng(0)
  shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 16))
  differences = math.sqrt(0.2) * shared + math.sqrt(0.8) * own
  corrected, naive = (
    np.mean([stats.corrected_test(row, overlap) < 0.05 for row in differences])
    for overlap in (0.25, 0.0)
  )
  assert 0.03 < corrected < 0.07
  assert naive > 0.3
