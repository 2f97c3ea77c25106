"""Ensembles of members that were trained anyway: they predict by the mean of their probabilities.

The members of one arm are divided into disjoint groups of k, so no network is in two ensembles and
groups are independent replications, as seeds are elsewhere. Each ensemble is compared with the mean
accuracy of its own members, so the comparison is paired.
"""

from typing import NamedTuple

import numpy as np

from jaxdl.errors import check_integer
from jaxdl.optim import metrics
from jaxdl.stats import verdicts
from jaxdl.stats.scores import AXES, Scores
from jaxdl.stats.tests import NUM_RESAMPLES
from jaxdl.stats.verdicts import Verdict


class Ensembles(NamedTuple):
  """All ensembles of one size, G of them; see `disjoint_ensembles`."""

  size: int  # k, members of each
  accuracy: np.ndarray  # [G]
  mean_member_accuracy: np.ndarray  # [G], mean over the members of the same ensemble


def disjoint_ensembles(
  logits: np.ndarray, labels: np.ndarray, size: int, threshold: float = 0.5
) -> Ensembles:
  """Returns the accuracy of disjoint ensembles that average the probabilities of their members.

  The first k members are the first ensemble, the next k the second, and so on; members left over
  are in none.

  Args:
    logits: `[S, N, C]`, or `[S, N, 1]` for models with one sigmoid output; finite. Leave out
      members that diverged.
    labels: `[N]`.
    size: k, at least 1.
    threshold: with one output, class 1 is predicted if its mean probability is above this.

  Returns:
    The G = floor(S / k) ensembles.

  Raises:
    InputError: the size is not a positive integer.
    ValueError: the shapes do not match, or a logit is not finite.
  """
  check_integer("the size of an ensemble", size, 1)
  logits, labels = np.asarray(logits), np.asarray(labels)
  if logits.ndim != 3 or labels.shape != logits.shape[1:2]:
    raise ValueError(
      f"logits must be [S, N, C] and labels [N], not {logits.shape} and {labels.shape}"
    )
  if not np.isfinite(logits).all():
    raise ValueError("logits must be finite: leave out members that diverged")
  accuracy, of_members = [], []
  # Group by group: the probabilities of all members in float64 may not fit in memory.
  for start in range(0, len(logits) - size + 1, size):
    members = metrics.probabilities(logits[start : start + size])  # [k, N, C]
    both = np.concatenate([members.mean(axis=0, keepdims=True), members])  # [1 + k, N, C]
    predicted = both.argmax(axis=-1) if logits.shape[-1] > 1 else both[..., 1] > threshold
    share_correct = (predicted == labels).mean(axis=-1)  # [1 + k]
    accuracy.append(share_correct[0])
    of_members.append(share_correct[1:].mean())
  return Ensembles(size, np.array(accuracy, float), np.array(of_members, float))


def power_of_two_sizes(num_members: int) -> list[int]:
  """Returns 1, 2, 4, ... up to the number of members."""
  return [2**power for power in range(num_members.bit_length())]


def compare(
  ensembles: Ensembles,
  name: str,
  margin: float,
  alpha: float = 0.05,
  num_resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> Verdict | None:
  """Compares ensembles with their own members: does averaging improve the accuracy?

  Groups take the place of seeds. The verdict is not corrected for the number of sizes or arms.

  Args:
    ensembles: from `disjoint_ensembles`.
    name: the arm that the members belong to.
    margin: see `jaxdl.stats.compare`, as for the other three.
    alpha: level of the test.
    num_resamples: of the test.
    seed: of the test.

  Returns:
    The verdict on the ensemble against one member; None for ensembles of one, which are the member.
  """
  if ensembles.size == 1:
    return None
  member = f"one member of {name}"
  scores = Scores(
    metric="test_accuracy",
    values=np.stack([ensembles.accuracy, ensembles.mean_member_accuracy], axis=1),  # [G, 2]
    seeds=tuple(range(len(ensembles.accuracy))),
    arms=(f"{ensembles.size} of {name}", member),
    axes=AXES,
    higher_is_better=True,
  )
  (verdict,) = verdicts.compare(scores, margin, alpha, num_resamples, seed, reference=member)
  return verdict
