"""Losses: name -> (logits [B, C], labels [B]) -> per-example loss [B].

Losses take logits, not probabilities, so that they stay finite and exact where a sigmoid or softmax
would saturate. Means are taken by the caller, who knows which examples count.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError, unknown_name


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns -log p(label) for one sigmoid output: `max(z, 0) - z y + log(1 + exp(-|z|))`.

  Args:
    logits: `[B, 1]`.
    labels: `[B]`, 0 or 1.

  Returns:
    `[B]`, in nats.
  """
  return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels.astype(logits.dtype))


def categorical_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns -log p(label) for a softmax over C outputs: `logsumexp(z) - z[label]`.

  Args:
    logits: `[B, C]`.
    labels: `[B]`, 0 to C - 1.

  Returns:
    `[B]`, in nats.
  """
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def mean_squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean over classes of `(onehot(label) - softmax(z))^2`, as Keras has it.

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

  Keras's definition, on the logits themselves: the margin is one of raw scores. On probabilities
  1 - t p is never negative, so the maximum would do nothing and the loss would be linear in the
  probability of the label. At the kink, t z = 1, the derivative is 0, as that of ReLU is.

  Args:
    logits: `[B, C]`.
    labels: `[B]`, 0 to C - 1.

  Returns:
    `[B]`, at least 0.
  """
  target = 2 * _one_hot(logits, labels) - 1  # [B, C]
  return jax.nn.relu(1 - target * logits).mean(axis=-1)


def _one_hot(logits: jax.Array, labels: jax.Array) -> jax.Array:
  return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)  # [B, C]


_LOSSES = {
  "binary_cross_entropy": binary_cross_entropy,
  "categorical_cross_entropy": categorical_cross_entropy,
  "hinge": hinge,
  "mean_squared_error": mean_squared_error,
}
NAMES = tuple(_LOSSES)


def get(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the loss of that name. Raises InputError when there is none."""
  if name not in _LOSSES:
    raise unknown_name("loss", name, _LOSSES)
  return _LOSSES[name]


def num_outputs(name: str, num_classes: int) -> int:
  """Returns how many outputs a model needs: 1 for `binary_cross_entropy`, else one per class.

  Raises:
    InputError: where `binary_cross_entropy` is asked to tell more than two classes apart.
  """
  if name != "binary_cross_entropy":
    return num_classes
  if num_classes != 2:
    raise InputError(
      f"loss 'binary_cross_entropy' tells 2 classes apart, the dataset has {num_classes}; "
      "choose two classes or loss 'categorical_cross_entropy'"
    )
  return 1
