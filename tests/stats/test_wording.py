"""Verdicts in words."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from made_up_scores import from_differences, make_verdict, only, standardized

from jaxdl import stats

NAN = math.nan


def test_sentence_says_by_how_much():
  verdict = make_verdict(
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
