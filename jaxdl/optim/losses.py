"""Losses: name -> (logits [B, C], labels [B]) -> per-example loss [B].

Losses take logits, not probabilities, so that they stay finite and accurate where a sigmoid or
softmax would saturate. The caller takes the mean, because it knows which examples count.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.errors import InputError, unknown_name


def binary_cross_entropy(
  logits: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0
) -> jax.Array:
  """Returns -log p(label) for one sigmoid output: `max(z, 0) - z y + log(1 + exp(-|z|))`.

  Args:
    logits: `[B, 1]`.
    labels: `[B]`, 0 or 1.
    label_smoothing: s, `[]`, 0 to 1: the target is y (1 - s) + s / 2, as in Keras.

  Returns:
    `[B]`, in nats.
  """
  target = labels.astype(logits.dtype)  # [B]
  if not _is_zero(label_smoothing):
    target = target * (1 - label_smoothing) + label_smoothing / 2
  return optax.sigmoid_binary_cross_entropy(logits[:, 0], target)


def categorical_cross_entropy(
  logits: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0
) -> jax.Array:
  """Returns -log p(label) for a softmax over C outputs: `logsumexp(z) - z[label]`.

  With label smoothing s (Szegedy et al. 2016) the target is `(1 - s) onehot(label) + s / C` and the
  loss is `(1 - s) (-log p(label)) + s mean_c(-log p(c))`. The largest logit is subtracted in both
  terms, so large logits lose no accuracy, and s = 0 gives the same bits as no smoothing.

  Args:
    logits: `[B, C]`.
    labels: `[B]`, 0 to C - 1.
    label_smoothing: s, `[]`, 0 to 1.

  Returns:
    `[B]`, in nats.
  """
  label_loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  if _is_zero(label_smoothing):
    return label_loss
  mean_loss = -jax.nn.log_softmax(logits).mean(axis=-1)  # [B], over classes
  return (1 - label_smoothing) * label_loss + label_smoothing * mean_loss


def mean_squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean over classes of `(onehot(label) - softmax(z))^2`, Keras's definition.

  Keras divides by the number of classes; the Brier score of Brier (1950) does not.

  Args:
    logits: `[B, C]`.
    labels: `[B]`, 0 to C - 1.

  Returns:
    `[B]`, 0 to 2 / C.
  """
  return jnp.square(_one_hot(logits, labels) - jax.nn.softmax(logits)).mean(axis=-1)


def hinge(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean over classes of `max(0, 1 - t z)`, t = 1 for the label and -1 elsewhere.

  This is Keras's definition, applied to the logits: the margin is between scores, not between
  probabilities as in `softmax_hinge`. At the kink, t z = 1, the derivative is 0, as for ReLU.

  Args:
    logits: `[B, C]`.
    labels: `[B]`, 0 to C - 1.

  Returns:
    `[B]`, at least 0.
  """
  return jax.nn.relu(1 - _signs(logits, labels) * logits).mean(axis=-1)


def softmax_hinge(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean over classes of `max(0, 1 - t softmax(z))`, t = 1 for the label, else -1.

  This is the loss of a Keras model that ends in a softmax and is compiled with `hinge`. No
  probability exceeds 1, so the maximum has no effect: the loss is
  1 - (p(label) - (1 - p(label))) / C = 1 + (1 - 2 p(label)) / C, which is linear in the probability
  of the label and has no margin.

  Args:
    logits: `[B, C]`.
    labels: `[B]`, 0 to C - 1.

  Returns:
    `[B]`, 1 - 1 / C to 1 + 1 / C.
  """
  probabilities = jax.nn.softmax(logits)
  return jax.nn.relu(1 - _signs(logits, labels) * probabilities).mean(axis=-1)


def _signs(logits: jax.Array, labels: jax.Array) -> jax.Array:
  return 2 * _one_hot(logits, labels) - 1  # [B, C], 1 for the label and -1 elsewhere


def _one_hot(logits: jax.Array, labels: jax.Array) -> jax.Array:
  return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)  # [B, C]


def _is_zero(label_smoothing: jax.Array | float) -> bool:
  """Returns whether it is a Python 0, which is known while tracing, so smoothing is left out."""
  return isinstance(label_smoothing, int | float) and label_smoothing == 0


_LOSSES = {
  "binary_cross_entropy": binary_cross_entropy,
  "categorical_cross_entropy": categorical_cross_entropy,
  "hinge": hinge,
  "mean_squared_error": mean_squared_error,
  "softmax_hinge": softmax_hinge,
}
NAMES = tuple(_LOSSES)
# The losses that take label smoothing.
SMOOTHABLE = ("binary_cross_entropy", "categorical_cross_entropy")


def get(name: str) -> Callable[..., jax.Array]:
  """Returns the loss with this name. Raises InputError for an unknown name."""
  if name not in _LOSSES:
    raise unknown_name("loss", name, _LOSSES)
  return _LOSSES[name]


def select(
  names: Sequence[str], index: jax.Array, label_smoothing: jax.Array | None
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the loss chosen by a traced index.

  It uses `lax.switch`, not `jnp.where`: the gradient of `jnp.where` multiplies the gradient of the
  other losses by zero, which gives NaN if that gradient is not finite. Under `vmap` a switch also
  computes every branch, but it selects among finished gradients, provided that the gradient is
  taken inside the `vmap`: `vmap(grad(...))`, not `grad(vmap(...))`.

  Args:
    names: the losses to choose from, static, all with the same `num_outputs`. A single loss is
      compiled without a switch.
    index: `[]` int32, position in `names`.
    label_smoothing: `[]`, for the losses in `SMOOTHABLE`; the others ignore it. None compiles no
      smoothing.

  Returns:
    A function `(logits [B, C], labels [B]) -> [B]`.
  """
  branches = []
  for name in names:
    loss = get(name)
    if label_smoothing is not None and name in SMOOTHABLE:
      loss = functools.partial(loss, label_smoothing=label_smoothing)
    branches.append(loss)
  if len(branches) == 1:
    return branches[0]
  return lambda logits, labels: lax.switch(index, branches, logits, labels)


def num_outputs(name: str, num_classes: int) -> int:
  """Returns how many outputs a model needs: 1 for `binary_cross_entropy`, else one per class.

  Raises:
    InputError: for `binary_cross_entropy` unless there are two classes.
  """
  if name != "binary_cross_entropy":
    return num_classes
  if num_classes != 2:
    raise InputError(
      f"loss 'binary_cross_entropy' tells 2 classes apart, the dataset has {num_classes}; "
      "choose two classes or loss 'categorical_cross_entropy'"
    )
  return 1
