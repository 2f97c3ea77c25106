"""Losses: name -> (logits [B, C], labels [B]) -> per-example loss [B].

Losses take logits, not probabilities, so that they stay finite and exact where a sigmoid or softmax
would saturate. Means are taken by the caller, who knows which examples count.
"""

from collections.abc import Callable

import jax
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


_LOSSES = {
  "binary_cross_entropy": binary_cross_entropy,
  "categorical_cross_entropy": categorical_cross_entropy,
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
