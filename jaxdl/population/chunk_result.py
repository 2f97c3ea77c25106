"""The results of one trained chunk, on the host, and how the results of several are joined."""

import collections
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.forward import Variables
from jaxdl.member import DIVERGED, EpochMetrics, MemberState
from jaxdl.optim import metrics
from jaxdl.population.plan import Chunk, Group
from jaxdl.population.programs import TestResult
from jaxdl.store.store import Store

_LOGGER = logging.getLogger("jaxdl")


class ChunkResult(NamedTuple):
  """The results of one trained chunk, on the host; without padding."""

  status: np.ndarray  # [S, A] int, as in jaxdl.train
  num_epochs: np.ndarray  # [S, A] int
  best_epoch: np.ndarray  # [S, A] int
  curves: EpochMetrics  # [S, A, E]
  test_loss: np.ndarray  # [S, A]
  metrics: dict[str, np.ndarray]  # [S, A], on the test set: the arms' own, and those of numbers
  confusion: np.ndarray  # [S, A, C, C] int, at the arm's threshold; C is 0 if targets are numbers
  confusion_at_half: np.ndarray  # [S, A, C, C] int, at threshold 0.5
  correct: np.ndarray  # [S, A, ceil(N / 8)] uint8, a bit per example, at the arm's threshold
  correct_at_half: np.ndarray  # [S, A, ceil(N / 8)] uint8, at threshold 0.5
  calibration: np.ndarray  # [S, A, 3, M], see `metrics.calibration_counts`
  auc: np.ndarray  # [S, A]
  # [A, N, C], summed over the seeds that did not diverge; of numbers, the sum of the outputs.
  # N is 0 if seeds are tested on different examples.
  sum_probabilities: np.ndarray
  observations: dict[str, np.ndarray]  # [S, A, E + 1, ...]
  logits: np.ndarray | None  # [S, A, N, C]; of numbers, the outputs
  variables: dict[str, np.ndarray] | None  # path, joined by "/" -> [S, A, ...]
  train_seconds: np.ndarray  # [S, A]

  def to_arrays(self) -> dict[str, np.ndarray]:
    """Returns the results as name -> array, for a file."""
    curves = self.curves._asdict()
    nested = {
      "curves": curves,
      "val_metrics": curves.pop("val_metrics"),
      "metrics": self.metrics,
      "observations": self.observations,
      "variables": self.variables or {},
    }
    flat = {k: v for k, v in self._asdict().items() if k not in nested and v is not None}
    return flat | {f"{k}/{name}": v for k, of in nested.items() for name, v in of.items()}

  @classmethod
  def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ChunkResult":
    """Rebuilds the results that `to_arrays` was called on.

    Raises:
      ValueError: an array is missing or unexpected.
    """
    parts: dict[str, Any] = collections.defaultdict(dict)
    for name, array in arrays.items():
      outer, _, inner = name.partition("/")
      if inner:
        parts[outer][inner] = array
      else:
        parts[outer] = array
    try:
      own = parts.pop("val_metrics", {})
      curves = EpochMetrics(**parts.pop("curves"), val_metrics=own)
      optional = {
        "metrics": parts.pop("metrics", {}),
        "observations": parts.pop("observations", {}),
        "logits": parts.pop("logits", None),
        "variables": parts.pop("variables", None),
      }
      return cls(curves=curves, **optional, **parts)
    except (KeyError, TypeError) as error:
      raise ValueError(f"these are not the results of a chunk: {error}") from error


def join(results: Sequence[ChunkResult], axis: int) -> ChunkResult:
  """Joins the results of several chunks along the seeds (axis 0) or the arms (axis 1)."""

  def along(*leaves):
    return np.concatenate(leaves, axis)

  joined = jax.tree.map(along, *(r._replace(sum_probabilities=None) for r in results))
  sums = [result.sum_probabilities for result in results]  # [A, N, C]
  return joined._replace(sum_probabilities=sum(sums) if axis == 0 else np.concatenate(sums))


def assemble(
  results: Mapping[Chunk, ChunkResult], places: Sequence[int], ends: Sequence[int]
) -> ChunkResult:
  """Puts the results of a group's chunks side by side.

  Members without a result have the status RUNNING, NaN as floats and 0 as integers.

  Args:
    results: of one chunk or more, which do not overlap.
    places: `[S]`, the indices of the seeds of these chunks, increasing.
    ends: `[A]`, the number of seeds of each arm. What is trained beyond is left out, except from
      `sum_probabilities`, the sums over all seeds of the chunks.
  """
  like = next(iter(results.values()))

  def blank(leaf):
    is_float = np.issubdtype(leaf.dtype, np.floating)
    shape = (len(places), len(ends), *leaf.shape[2:])
    return np.full(shape, np.nan if is_float else 0, leaf.dtype)

  whole = jax.tree.map(blank, like._replace(sum_probabilities=None))
  sums = np.zeros((len(ends), *like.sum_probabilities.shape[1:]), like.sum_probabilities.dtype)
  for chunk, result in results.items():
    sums[chunk.arm : chunk.arm + chunk.num_arms] += result.sum_probabilities
    first, num_seeds = places.index(chunk.seed), len(result.status)
    by_member = jax.tree.leaves(result._replace(sum_probabilities=None))
    for arm, end in enumerate(ends[chunk.arm : chunk.arm + chunk.num_arms]):
      count = min(num_seeds, end - chunk.seed)
      for leaf, part in zip(jax.tree.leaves(whole), by_member, strict=True):
        leaf[first : first + count, chunk.arm + arm] = part[:count, arm]
  return whole._replace(sum_probabilities=sums)


def read_chunk(store: Store, group: Group, chunk: Chunk) -> ChunkResult | None:
  """Returns the stored results of a chunk, or None if they are missing or damaged."""
  arrays = store.read_chunk(chunk.name)
  if arrays is None:
    return None
  try:
    result = ChunkResult.from_arrays(arrays)
    if result.status.shape != (group.num_real(chunk), chunk.num_arms):
      raise ValueError("it has other members")
  except ValueError as error:
    _LOGGER.warning("chunk %s is trained again: %s", chunk.name, error)
    store.delete_chunk(chunk.name)
    return None
  return result


def progress_of(group: Group, result: ChunkResult) -> tuple[int, int, int]:
  """Returns the arguments of `Progress.resume` for a trained chunk."""
  most = group.recipe.arm.num_epochs
  return int(result.num_epochs.sum()), int((most - result.num_epochs).sum()), result.status.size


def sum_up(
  dataset: Dataset,
  group: Group,
  chunk: Chunk,
  state: MemberState,
  rows: Sequence[EpochMetrics],
  observed: Sequence[dict[str, np.ndarray]],
  tested: TestResult,
  seconds: float,
  variables: Variables | None = None,
) -> ChunkResult:
  """Returns the results of a chunk's members, without padding.

  Args:
    dataset: the dataset that the chunk trained on.
    group: the group of the chunk.
    chunk: the chunk.
    state: `[s, a]`, the state after the last epoch, on the host; its parameters are not used.
    rows: the metrics `[s, a]` of each epoch, on the host.
    observed: the observer's arrays `[s, a, ...]` at initialisation and after each epoch, on the
      host.
    tested: the test results `[s, a, ...]`, on the host. A member whose results are not finite is
      marked as diverged.
    seconds: time that training and testing the chunk took.
    variables: `[s, a, ...]`, those that results are about, on the host; None keeps none.
  """
  num_epochs, num_real = group.recipe.arm.num_epochs, group.num_real(chunk)
  state, tested = jax.tree.map(lambda x: x[:num_real], (state, tested))
  # A member can diverge in its very last update, which only the test reveals.
  axes = tuple(range(2, tested.outputs.ndim))
  finite = np.isfinite(tested.loss) & np.isfinite(tested.outputs).all(axis=axes)  # [S, A]
  status = np.where(finite, state.status, DIVERGED)
  valid = status != DIVERGED  # [S, A]
  outputs = np.where(np.expand_dims(valid, axes), tested.outputs, 0)  # [S, A, N, C]
  predicted = tested.predicted, tested.predicted_at_half
  own = group.split_of(chunk)
  if own is None:
    scores = _score(dataset.num_classes, dataset.test.targets, valid, outputs, *predicted)
  else:  # each seed is tested on other examples
    parts = [
      _score(
        dataset.num_classes,
        dataset.test.targets[own.test[s]],
        valid[s : s + 1],
        outputs[s : s + 1],
        *(None if of is None else of[s : s + 1] for of in predicted),
      )._replace(sum_probabilities=np.zeros((chunk.num_arms, 0, outputs.shape[-1])))
      for s in range(num_real)
    ]
    scores = jax.tree.map(lambda *of: np.concatenate(of), *parts)
    scores = scores._replace(sum_probabilities=parts[0].sum_probabilities)
  return ChunkResult(
    status=status,
    num_epochs=state.num_epochs,
    best_epoch=state.best_epoch,
    curves=_along_epochs(rows, num_real, num_epochs),
    test_loss=tested.loss,
    **(scores._asdict() | {"metrics": scores.metrics | tested.metrics}),
    observations=_along_epochs(observed, num_real, num_epochs + 1),
    logits=tested.outputs,
    variables=None if variables is None else _flat(variables, num_real),
    train_seconds=np.full(finite.shape, seconds / finite.size),
  )


class _Scores(NamedTuple):
  """The fields of a `ChunkResult` that compare predictions with targets."""

  metrics: dict[str, np.ndarray]
  confusion: np.ndarray
  confusion_at_half: np.ndarray
  correct: np.ndarray
  correct_at_half: np.ndarray
  calibration: np.ndarray
  auc: np.ndarray
  sum_probabilities: np.ndarray


def _score(num_classes, targets, valid, outputs, predicted, predicted_at_half) -> _Scores:
  """Compares the predictions `[S, A, N, ...]` of members with the targets `[N, ...]`."""
  # Of sequences, every position counts as an example.
  flat = (*valid.shape, targets.size)
  own_metrics = {}
  if num_classes:
    means = metrics.probabilities(outputs) * np.expand_dims(valid, tuple(range(2, outputs.ndim)))
    probabilities = means.reshape(*flat, means.shape[-1])
    calibration = metrics.calibration_counts(probabilities, targets.ravel())
    calibration = calibration * valid[..., None, None]
    auc = metrics.auc(probabilities, targets.ravel())
  else:
    means, own_metrics = outputs, metrics.of_numbers(outputs, targets)
    calibration = np.zeros((*valid.shape, 3, metrics.NUM_BINS))
    auc = np.full(valid.shape, np.nan)

  def bits(predicted):  # [S, A, N] -> [S, A, ceil(N / 8)]
    right = np.zeros(flat, bool)
    if num_classes:
      right = (predicted == targets).reshape(flat) & valid[..., None]
    return np.packbits(right, axis=-1)

  def count(predicted):  # [S, A, N] -> [S, A, C, C]
    if not num_classes:
      return np.zeros((*valid.shape, 0, 0), int)
    counts = metrics.confusion_matrix(targets.ravel(), predicted.reshape(flat), num_classes)
    return np.where(valid[..., None, None], counts, 0)

  return _Scores(
    metrics=own_metrics,
    confusion=count(predicted),
    confusion_at_half=count(predicted_at_half),
    correct=bits(predicted),
    correct_at_half=bits(predicted_at_half),
    calibration=calibration,
    auc=auc,
    sum_probabilities=means.sum(axis=0),
  )


def _flat(variables: Variables, num_real: int) -> dict[str, np.ndarray]:
  """Returns variables by path, without padding seeds."""
  flat = flax.traverse_util.flatten_dict(variables.collections(), sep="/")
  return {path: leaf[:num_real] for path, leaf in flat.items()}


def _along_epochs(epochs: Sequence, num_real: int, length: int) -> Any:
  """Stacks one tree of `[s, a, ...]` per epoch to `[S, A, length, ...]`, without padding seeds."""
  return jax.tree.map(
    lambda *leaves: pad_epochs(np.stack(leaves, axis=2)[:num_real], length), *epochs
  )


def as_float(values: np.ndarray) -> np.ndarray:
  """Converts integers to floats, so that NaN can mark a missing value; keeps floats as they are."""
  return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def pad_epochs(curve: np.ndarray, num_epochs: int) -> np.ndarray:
  """Cuts or pads curves `[S, A, e, ...]` to `[S, A, E, ...]`, with NaN after their end."""
  curve = as_float(curve[:, :, :num_epochs])
  padding = [(0, 0)] * curve.ndim
  padding[2] = (0, num_epochs - curve.shape[2])
  return np.pad(curve, padding, constant_values=np.nan)
