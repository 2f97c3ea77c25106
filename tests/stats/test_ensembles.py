"""Ensembles: hand-computed accuracies, and laws that hold for any logits."""

import numpy as np
import pytest

from jaxdl import stats
from jaxdl.errors import InputError
from jaxdl.optim import metrics
from jaxdl.stats import ensembles

_LABELS = np.array([0, 1, 2] * 10)


@pytest.fixture(scope="module")
def logits():
  """Seven members that are somewhat right, [7, 30, 3]."""
  rng = np.random.default_rng(0)
  return (np.eye(3)[_LABELS] + rng.normal(0, 1.5, (7, 30, 3))).astype(np.float32)


def test_three_examples_by_hand():
  """Two members, three examples of two classes, all of class 0.

  Probabilities of class 0: 0.9, 0.4, 0.4, one right; 0.2, 0.7, 0.51, two right; on average 0.55,
  0.55, 0.455: the ensemble has the first two right.
  """
  p = np.array([[0.9, 0.4, 0.4], [0.2, 0.7, 0.51]])
  logits = np.log(np.stack([p, 1 - p], axis=-1))  # [2, 3, 2]
  found = ensembles.disjoint_ensembles(logits, np.zeros(3, int), 2)
  assert found.size == 2
  np.testing.assert_allclose(found.accuracy, [2 / 3], rtol=1e-12)
  np.testing.assert_allclose(found.mean_member_accuracy, [(1 / 3 + 2 / 3) / 2], rtol=1e-12)


def test_probabilities_are_averaged_and_not_logits():
  """One member is very sure of class 0, three lean to class 1.

  The mean logit of class 0 is (20 - 3) / 4 = 4.25, which would be class 0; its mean probability is
  (1 + 3 * 0.27) / 4 = 0.45, which is class 1.
  """
  leaning = [[-1.0, 0.0]]
  logits = np.array([[[20.0, 0.0]], leaning, leaning, leaning])  # [4, 1, 2]
  assert logits.mean(axis=0)[0].argmax() == 0
  assert ensembles.disjoint_ensembles(logits, np.array([1]), 4).accuracy == [1.0]


def test_an_ensemble_of_one_is_the_member(logits):
  found = ensembles.disjoint_ensembles(logits, _LABELS, 1)
  own = (logits.argmax(axis=-1) == _LABELS).mean(axis=-1)
  np.testing.assert_array_equal(found.accuracy, own)
  np.testing.assert_array_equal(found.mean_member_accuracy, own)
  assert len(set(own)) > 2


@pytest.mark.parametrize("size", [2, 3, 7])
def test_an_ensemble_of_identical_members_is_a_member(logits, size):
  found = ensembles.disjoint_ensembles(np.repeat(logits[:1], size, axis=0), _LABELS, size)
  own = (logits[0].argmax(axis=-1) == _LABELS).mean()
  np.testing.assert_array_equal(found.accuracy, [own])
  np.testing.assert_allclose(found.mean_member_accuracy, [own], rtol=1e-12)


def test_groups_are_disjoint_and_leave_out_what_is_left_over(logits):
  found = ensembles.disjoint_ensembles(logits, _LABELS, 3)
  pieces = [ensembles.disjoint_ensembles(logits[i : i + 3], _LABELS, 3) for i in (0, 3)]
  np.testing.assert_array_equal(found.accuracy, np.concatenate([p.accuracy for p in pieces]))
  own = (logits.argmax(axis=-1) == _LABELS).mean(axis=-1)
  np.testing.assert_allclose(
    found.mean_member_accuracy, [own[:3].mean(), own[3:6].mean()], rtol=1e-12
  )
  assert len(ensembles.disjoint_ensembles(logits, _LABELS, 8).accuracy) == 0


def test_one_output_is_decided_at_the_threshold():
  """Two members, probabilities of class 1 0.9 and 0.7: 0.8 on average."""
  p = np.array([0.9, 0.7])
  logits = np.log(p / (1 - p)).reshape(2, 1, 1)
  for threshold, ensemble, members in ((0.75, 1.0, 0.5), (0.85, 0.0, 0.5), (0.5, 1.0, 1.0)):
    found = ensembles.disjoint_ensembles(logits, np.array([1]), 2, threshold)
    assert (found.accuracy[0], found.mean_member_accuracy[0]) == (ensemble, members)
  np.testing.assert_allclose(metrics.probabilities(logits)[:, 0, 1], p)


@pytest.mark.parametrize(
  ("num_members", "sizes"),
  [(0, []), (1, [1]), (2, [1, 2]), (12, [1, 2, 4, 8]), (16, [1, 2, 4, 8, 16])],
)
def test_sizes(num_members, sizes):
  assert ensembles.power_of_two_sizes(num_members) == sizes


def test_verdict_is_on_pairs_of_groups():
  members = np.array([0.50, 0.52, 0.51, 0.49, 0.50, 0.53])
  gains = np.array([0.02, 0.021, 0.019, 0.02, 0.022, 0.018])
  found = ensembles.Ensembles(4, members + gains, members)
  verdict = ensembles.compare(found, "cnn", margin=0.01)
  assert (verdict.arm_a, verdict.arm_b) == ("4 of cnn", "one member of cnn")
  assert (verdict.num_pairs, verdict.verdict) == (6, stats.BETTER)
  assert verdict.mean_difference == pytest.approx(0.02)
  assert verdict.p_value == 2 / 2**6
  few = ensembles.Ensembles(8, found.accuracy[:5], members[:5])
  assert ensembles.compare(few, "cnn", margin=0.01).verdict == stats.TOO_FEW_SEEDS


def test_an_ensemble_of_one_is_not_compared(logits):
  found = ensembles.disjoint_ensembles(logits, _LABELS, 1)
  assert ensembles.compare(found, "cnn", margin=0.01) is None


def test_bad_input(logits):
  with pytest.raises(InputError, match="size of an ensemble"):
    ensembles.disjoint_ensembles(logits, _LABELS, 0)
  with pytest.raises(ValueError, match=r"labels \[N\]"):
    ensembles.disjoint_ensembles(logits, _LABELS[1:], 2)
  with pytest.raises(ValueError, match="diverged"):
    ensembles.disjoint_ensembles(np.where(logits > 0, np.nan, logits), _LABELS, 2)
