"""Tests for seeds of which each is trained and tested on its own split of the same examples.

Splits overlap, so the scores of seeds are not independent, and their spread says too little about
other examples. Nadeau & Bengio (2003, Inference for the Generalization Error, Machine Learning
52:239) take the correlation of two splits to be the share of the examples that is tested, which
makes the variance of a mean over n splits

  (1 / n + num_test / num_train) s^2,   s^2 the sample variance,

and the test Student's t with n - 1 degrees of freedom. (For repeated cross-validation: Bouckaert &
Frank, 2004, PAKDD, 3.) The second term, the overlap, stays however many seeds there are: they are
splits of the same examples. Sign-flip tests take the seeds to be independent and are not valid.
"""

import math

import numpy as np

from jaxdl.stats.scores import is_constant, mean, std


def standard_error(differences: np.ndarray, overlap: float) -> float:
  """Returns the standard error of the mean of differences `[n]`; NaN if n < 2 or all are equal.

  Args:
    differences: [n], one per split.
    overlap: num_test / num_train.
  """
  if len(differences) < 2 or is_constant(differences):
    return math.nan
  return std(differences) * math.sqrt(1 / len(differences) + overlap)


def corrected_test(differences: np.ndarray, overlap: float) -> float:
  """Returns the two-sided p-value of a mean of zero; 1 if n < 2 or all differences are equal."""
  return _p_value(differences, abs(mean(differences)), overlap, 2)


def corrected_tost(differences: np.ndarray, margin: float, overlap: float) -> float:
  """Returns the p-value of two one-sided tests that |mean| >= margin; 1 as in `corrected_test`."""
  return _p_value(differences, margin - abs(mean(differences)), overlap, 1)


def floor(differences: np.ndarray, overlap: float, confidence: float = 0.95) -> float:
  """Returns the half-width that the interval keeps with infinitely many splits; NaN likewise.

  z s sqrt(overlap), with the standard deviation so far.
  """
  from scipy.special import ndtri

  if math.isnan(standard_error(differences, overlap)):
    return math.nan
  return float(ndtri((1 + confidence) / 2)) * std(differences) * math.sqrt(overlap)


def _p_value(differences: np.ndarray, distance: float, overlap: float, num_sides: int) -> float:
  from scipy.special import stdtr

  error = standard_error(differences, overlap)
  if math.isnan(error):
    return 1.0
  return float(num_sides * stdtr(len(differences) - 1, -distance / error))
