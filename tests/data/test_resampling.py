"""Splits that each seed draws: partitions, equal sizes, the same on every machine."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import data
from jaxdl.errors import InputError


@given(st.integers(30, 400), st.integers(0, 9), st.sampled_from(["folds(3)", "holdout(0.25)"]))
def test_law_a_split_is_a_partition(num_examples, seed, scheme):
  resampling = data.Resampling(scheme, num_examples)
  train, test = resampling.split(0, seed)
  assert (len(train), len(test)) == (resampling.num_train, resampling.num_test)
  assert sorted([*train, *test]) == list(range(num_examples))
  assert resampling.overlap == len(test) / len(train)


@given(st.integers(2, 7), st.integers(14, 60), st.integers(0, 3))
def test_law_folds_of_a_repetition_do_not_meet(k, num_examples, repetition):
  resampling = data.Resampling(f"folds({k})", num_examples)
  tested = resampling.splits(5, range(k * repetition, k * (repetition + 1))).test
  assert tested.shape == (k, num_examples // k)
  assert len(np.unique(tested)) == tested.size


@given(st.integers(30, 400), st.integers(0, 99))
def test_law_a_bootstrap_is_tested_on_what_it_did_not_draw(num_examples, seed):
  resampling = data.Resampling("bootstrap", num_examples)
  train, test = resampling.split(0, seed)
  assert len(train) == num_examples
  assert len(np.unique(test)) == resampling.num_test
  assert not set(train) & set(test)


def test_a_bootstrap_draws_each_example_equally_often():
  """1000 draws of 1000 from 1000: each count has mean 1000 and standard deviation 31.6."""
  drawn = data.Resampling("bootstrap", 1000).splits(0, range(1000)).train
  counts = np.bincount(drawn.ravel(), minlength=1000)
  assert abs(counts - 1000).max() < 5 * 31.6
  different = np.mean([len(np.unique(row)) for row in drawn])
  assert different == pytest.approx(1000 * (1 - 1 / math.e), abs=2)


def test_splits_depend_on_seeds_alone():
  resampling = data.Resampling("holdout(0.2)", 50)
  first = resampling.splits(0, (3, 7))
  np.testing.assert_array_equal(first.test[1], resampling.split(0, 7).test)
  assert (first.test[0] != first.test[1]).any()
  assert (resampling.split(1, 7).test != first.test[1]).any()
  # The same in every version of NumPy.
  assert resampling.split(0, 0).test.tolist() == [2, 3, 11, 13, 15, 20, 21, 32, 46, 48]


def test_what_is_no_scheme_is_refused_in_one_line(blobs):
  for scheme, message in (
    ("thirds", "unknown resample"),
    ("folds(1)", "an integer >= 2"),
    ("folds(2.5)", "k of resample .* must be an integer >= 2"),
    ("holdout(1)", "between 0 and 1"),
    ("folds(60)", "folds\\(60\\) of 50 examples leaves none to train or none to test on"),
  ):
    with pytest.raises(InputError, match=message):
      data.resample(blobs, scheme)


def test_a_resampled_dataset_describes_itself(blobs):
  text = data.resample(blobs, "folds(5)").description
  assert "70 images of 8 x 8 x 1" in text
  assert "training 40, validation 20, test 10" in text
  assert text.endswith("every seed has its own split: folds(5)")
