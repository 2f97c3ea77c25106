"""Losses: name -> (outputs [B, ...], targets [B, ...]) -> per-example loss [B].

Of classes, losses take logits, not probabilities, so that they stay finite and accurate where a
sigmoid or softmax would saturate. The caller takes the mean over examples, because it knows which
ones count. A loss of the user's own is a function of the same form.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl import calls
from jaxdl.calls import Argument, Call
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
  return optax.sigmoid_binary_cross_entropy(logits[..., 0], target)


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


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the mean over outputs of `(target - output)^2`.

  Of classes, it is the mean over classes of `(onehot(label) - softmax(z))^2`, Keras's definition.
  Keras divides by the number of classes; the Brier score of Brier (1950) does not.

  Args:
    outputs: `[B, K]`; logits `[B, C]` of classes.
    targets: `[B]` or `[B, K]` float; `[B]` int, 0 to C - 1, of classes.

  Returns:
    `[B]`; of classes 0 to 2 / C.
  """
  if _are_numbers(targets):
    return _mean_over_outputs(jnp.square(_difference(outputs, targets)))
  return jnp.square(_one_hot(outputs, targets) - jax.nn.softmax(outputs)).mean(axis=-1)


def mean_absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the mean over outputs of `|target - output|`, whose derivative at 0 is 0.

  Args:
    outputs: `[B, K]`.
    targets: `[B]` or `[B, K]` float.

  Returns:
    `[B]`.
  """
  difference = _difference(outputs, targets)
  # Not `jnp.abs`, whose derivative at 0 is 1.
  return _mean_over_outputs(difference * jnp.sign(difference))


def huber(outputs: jax.Array, targets: jax.Array, delta: jax.Array | float = 1.0) -> jax.Array:
  """Returns the mean over outputs of Huber's loss (1964) of the difference d.

  It is `d^2 / 2` where |d| <= delta, and `delta (|d| - delta / 2)` elsewhere.

  Args:
    outputs: `[B, K]`.
    targets: `[B]` or `[B, K]` float.
    delta: `[]`, > 0.

  Returns:
    `[B]`.
  """
  return _mean_over_outputs(optax.huber_loss(_difference(outputs, targets), delta=delta))


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


def _are_numbers(targets: jax.Array) -> bool:
  return jnp.issubdtype(targets.dtype, jnp.floating)


def _difference(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  return (outputs.reshape(targets.shape) - targets).reshape(len(targets), -1)  # [B, K]


def _mean_over_outputs(values: jax.Array) -> jax.Array:
  return values.mean(axis=-1)  # [B]


_DELTA = Argument("delta", lambda value: value > 0, "> 0", 1.0)
# Name -> the loss, and its arguments.
_LOSSES: dict[str, tuple[Callable[..., jax.Array], tuple[Argument, ...]]] = {
  "binary_cross_entropy": (binary_cross_entropy, ()),
  "categorical_cross_entropy": (categorical_cross_entropy, ()),
  "hinge": (hinge, ()),
  "huber": (huber, (_DELTA,)),
  "mean_absolute_error": (mean_absolute_error, ()),
  "mean_squared_error": (mean_squared_error, ()),
  "softmax_hinge": (softmax_hinge, ()),
}
NAMES = tuple(_LOSSES)
# The losses that take label smoothing.
SMOOTHABLE = ("binary_cross_entropy", "categorical_cross_entropy")
# The losses of numbers; all others are of classes, and `mean_squared_error` is of both.
OF_NUMBERS = ("huber", "mean_absolute_error", "mean_squared_error")


class Kind(NamedTuple):
  """A loss, or an initializer, without the values of its traced arguments."""

  name: str | Call
  arguments: tuple[str, ...] = ()  # the names of these


def parse(spec: str | Call) -> tuple[str | Call, dict[str, float]]:
  """Reads a loss from a setting.

  Args:
    spec: one of `NAMES`, where `huber(delta)` has 1 as its default; or a call of a function
      `(outputs [B, ...], targets [B, ...], ...) -> [B]`, e.g. `my_losses:focal(gamma=2.0)`.

  Returns:
    `(name, numbers)`; of a call, the numbers are its floats.

  Raises:
    InputError: for an unknown name, a number that is out of range, or a function that cannot be
      imported.
  """
  if calls.is_importable(spec):
    return Call.of(spec).split()
  return calls.parse("loss", spec, {name: arguments for name, (_, arguments) in _LOSSES.items()})


def get(name: str) -> Callable[..., jax.Array]:
  """Returns the loss with this name. Raises InputError for an unknown name."""
  if name not in _LOSSES:
    raise unknown_name("loss", name, _LOSSES)
  return _LOSSES[name][0]


def select(
  kinds: Sequence[Kind], index: jax.Array, values: jax.Array, label_smoothing: jax.Array | None
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the loss chosen by a traced index.

  It uses `lax.switch`, not `jnp.where`: the gradient of `jnp.where` multiplies the gradient of the
  other losses by zero, which gives NaN if that gradient is not finite. Under `vmap` a switch also
  computes every branch, but it selects among finished gradients, provided that the gradient is
  taken inside the `vmap`: `vmap(grad(...))`, not `grad(vmap(...))`.

  Args:
    kinds: the losses to choose from, static, all with the same `num_outputs`. A single loss is
      compiled without a switch.
    index: `[]` int32, position in `kinds`.
    values: `[P]` float32, the arguments of the chosen loss.
    label_smoothing: `[]`, for the losses in `SMOOTHABLE`; the others ignore it. None compiles no
      smoothing.

  Returns:
    A function `(outputs [B, ...], targets [B, ...]) -> [B]`. Where a target has several positions,
    it is the mean over them.
  """
  branches = []
  for name, arguments in kinds:
    loss = name.partial() if isinstance(name, Call) else get(name)
    settings = {argument: values[place] for place, argument in enumerate(arguments)}
    if label_smoothing is not None and name in SMOOTHABLE:
      settings["label_smoothing"] = label_smoothing
    branches.append(functools.partial(_mean_over_positions, functools.partial(loss, **settings)))
  if len(branches) == 1:
    return branches[0]
  return lambda outputs, targets: lax.switch(index, branches, outputs, targets)


def _mean_over_positions(loss: Callable, outputs: jax.Array, targets: jax.Array) -> jax.Array:
  values = loss(outputs, targets)  # [B], or [B, L] of a sequence
  return values if values.ndim < 2 else values.reshape(len(values), -1).mean(axis=-1)


def num_outputs(spec: str | Call, num_classes: int, target_shape: Sequence[int] = ()) -> int:
  """Returns how many outputs a model needs.

  Args:
    spec: the setting of the loss.
    num_classes: C; 0 if targets are numbers.
    target_shape: of one example.

  Returns:
    1 for `binary_cross_entropy`; else one per class, or one per number of a target.

  Raises:
    InputError: the loss is not for such targets.
  """
  name = None if calls.is_importable(spec) else parse(spec)[0]
  if num_classes == 0:
    if name is not None and name not in OF_NUMBERS:
      raise InputError(
        f"loss {name!r} is for classes, but the targets are numbers; choose one of "
        f"{', '.join(OF_NUMBERS)}"
      )
    return math.prod(target_shape)
  if name in ("huber", "mean_absolute_error"):
    raise InputError(f"loss {name!r} is for numbers, but the targets are classes")
  if name != "binary_cross_entropy":
    return num_classes
  if num_classes != 2:
    raise InputError(
      f"loss 'binary_cross_entropy' tells 2 classes apart, the dataset has {num_classes}; "
      "choose two classes or loss 'categorical_cross_entropy'"
    )
  return 1


def has_threshold(spec: str | Call) -> bool:
  """Returns whether a model has one output, the probability of class 1, which takes a threshold."""
  return spec == "binary_cross_entropy"
