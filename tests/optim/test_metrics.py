"""Metrics against scikit-learn and by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from jaxdl.optim import metrics


def test_threshold_is_strict_and_only_for_one_output():
  logits = jnp.array([[0.0], [0.1], [-0.1], [3.0]])
  assert metrics.predict_class(logits, 0.5).tolist() == [0, 1, 0, 1]
  assert metrics.predict_class(logits, 0.9).tolist() == [0, 0, 0, 1]
  assert metrics.predict_class(jnp.array([[0.1, 0.2, 0.0]]), 0.9).tolist() == [1]


def test_probabilities():
  np.testing.assert_allclose(metrics.probabilities(np.array([[np.log(3)]])), [[0.25, 0.75]])
  np.testing.assert_allclose(
    metrics.probabilities(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]]
  )
  assert metrics.probabilities(np.array([[1000.0, -1000.0]])).tolist() == [[1.0, 0.0]]


@given(
  num_classes=st.integers(2, 5),
  pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40),
)
def test_counts_and_rates_agree_with_scikit_learn(num_classes, pairs):
  true, predicted = np.array(pairs).T % num_classes
  confusion = metrics.confusion_matrix(true, predicted, num_classes)
  classes = range(num_classes)
  expected = reference.confusion_matrix(true, predicted, labels=classes)
  np.testing.assert_array_equal(confusion, expected)
  assert metrics.accuracy(confusion) == pytest.approx(reference.accuracy_score(true, predicted))
  average = {"average": "binary"} if num_classes == 2 else {"average": "macro"}
  *expected, _ = reference.precision_recall_fscore_support(
    true, predicted, zero_division=0.0, **average
  )
  np.testing.assert_allclose(metrics.precision_recall_f1(confusion), expected, atol=1e-12)


def test_macro_averages_skip_classes_that_do_not_occur():
  """Classes 0 and 1 are always right; class 2 has neither an example nor a prediction."""
  confusion = np.diag([3, 4, 0])
  assert metrics.precision_recall_f1(confusion) == (1, 1, 1)
  predicted_only = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
  precision, recall, _ = metrics.precision_recall_f1(predicted_only)
  assert (precision, recall) == pytest.approx((2 / 3, (3 / 4 + 1) / 3))


def test_leading_axes_are_kept():
  labels = np.array([0, 1, 1])
  predicted = np.array([[[0, 1, 1], [0, 0, 0]], [[1, 1, 1], [1, 0, 0]]])  # [S=2, A=2, N=3]
  confusion = metrics.confusion_matrix(labels, predicted, 2)
  assert confusion.shape == (2, 2, 2, 2)
  assert confusion[0, 1].tolist() == [[1, 0], [2, 0]]
  np.testing.assert_allclose(metrics.accuracy(confusion), [[1, 1 / 3], [2 / 3, 0]])


def test_no_examples_have_no_rate():
  empty = np.zeros((2, 2), int)
  assert np.isnan(metrics.accuracy(empty))
  assert all(np.isnan(rate) for rate in metrics.precision_recall_f1(empty))


def random_probabilities(num_classes, num_examples=40, shape=(2, 3)):
  """Two decimals only, so that they tie."""
  rng = np.random.default_rng(num_classes)
  labels = np.arange(num_examples) % num_classes
  logits = rng.normal(size=(*shape, num_examples, num_classes))
  probabilities = metrics.probabilities(logits).round(1) + 0.01
  return probabilities / probabilities.sum(axis=-1, keepdims=True), labels


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_auc_is_scikit_learn_s(num_classes):
  probabilities, labels = random_probabilities(num_classes)
  found = metrics.auc(probabilities, labels)
  for place in np.ndindex(2, 3):
    own = probabilities[place]
    of = own[:, 1] if num_classes == 2 else own
    expected = reference.roc_auc_score(labels, of, multi_class="ovr")
    assert found[place] == pytest.approx(expected)


def test_auc_needs_two_kinds_of_examples():
  probabilities, _ = random_probabilities(3)
  assert np.isnan(metrics.auc(probabilities, np.zeros(40, int))).all()


def test_calibration_by_hand():
  """Confidences 0.6, 0.6 and 0.9, the first and last right: errors of 0.1 and 0.1 in two bins."""
  probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]])
  counts = metrics.calibration_counts(probabilities, np.array([0, 1, 1]), num_bins=10)
  np.testing.assert_allclose(counts[:, [5, 8]], [[2, 1], [1.2, 0.9], [1, 1]])
  assert counts.sum() == pytest.approx(3 + 2.1 + 2)
  assert metrics.expected_calibration_error(counts) == pytest.approx((2 * 0.1 + 1 * 0.1) / 3)


def test_calibration_error_of_members_is_each_one_s_own():
  probabilities, labels = random_probabilities(3)
  counts = metrics.calibration_counts(probabilities, labels)
  found = metrics.expected_calibration_error(counts)
  for place in np.ndindex(2, 3):
    confidence = probabilities[place].max(axis=-1)
    right = probabilities[place].argmax(axis=-1) == labels
    expected = 0.0
    for m in range(15):
      of = (confidence > m / 15) & (confidence <= (m + 1) / 15)
      if of.any():
        expected += of.mean() * abs(right[of].mean() - confidence[of].mean())
    assert found[place] == pytest.approx(expected)
  assert np.isnan(metrics.expected_calibration_error(np.zeros((3, 15))))
