"""Is a backward pass of one's own right, and if not, where and why?

  >>> import numpy as np
  >>> from jaxdl import byhand
  >>> def forward(inputs, params):  # the mean of squares of a linear model
  ...   x, y = inputs
  ...   error = x @ params["w"] + params["b"] - y  # [B]
  ...   return np.mean(error**2), error
  >>> def backward(inputs, params, error):
  ...   x, _ = inputs
  ...   return {"w": 2 * x.T @ error, "b": 2 * error.mean()}
  >>> x, y = np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 1.0]]), np.array([1.0, 0.0, 2.0])
  >>> print(byhand.check(forward, backward, (x, y), {"w": np.array([0.5, -1.0]), "b": 0.25}))
  parameter  shape  relative error
  ---------  -----  --------------
  b          ()     ...             ok
  w          (2,)   2.0e+00         WRONG: the factor 1/3 of the mean over 3 examples is missing
  <BLANKLINE>
  The first mistake is in the gradient of w: the factor 1/3 of the mean over 3 examples is missing.
  Those computed before it are right: b.

Everything is float64. The reference is `jax.grad` if the forward pass is written in JAX, and
differences of the loss if it is written in NumPy.
"""

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.byhand import usual_mistakes
from jaxdl.byhand.gradient_reference import Example, Reference
from jaxdl.errors import InputError, brief

# Rounding and differences leave less than 1e-8, mistakes far more.
TOLERANCE = 1e-6
# Gradients are compared with the largest of any parameter where their own are tiny.
_SMALLEST_SHARE = 1e-4


@dataclasses.dataclass(frozen=True)
class CheckedGradient:
  """The gradient of one parameter and the verdict on it.

  Attributes:
    name: of the parameter; within nested dicts and lists, the keys joined by "/".
    shape: of the parameter.
    error: max |gradient - reference| / max |reference|; infinite if there is nothing to compare.
    num_compared: how many of its numbers were compared.
    cause: what the mistake seems to be; nothing if it is right, or if none of the usual ones fits.
  """

  name: str
  shape: tuple[int, ...]
  error: float
  num_compared: int
  cause: str = ""

  @property
  def passed(self) -> bool:
    """Whether the gradient is right."""
    return self.error <= TOLERANCE


@dataclasses.dataclass(frozen=True)
class BackwardCheck:
  """The verdict on a backward pass; `print` shows it as a table.

  Attributes:
    loss: of the forward pass.
    reference: what the gradients were compared with.
    gradients: in the order of the backward pass.
    notes: what else there is to say, a sentence each.
  """

  loss: float
  reference: str
  gradients: tuple[CheckedGradient, ...]
  notes: tuple[str, ...] = ()

  @property
  def passed(self) -> bool:
    """Whether all gradients are right."""
    return all(gradient.passed for gradient in self.gradients)

  @property
  def first_wrong(self) -> CheckedGradient | None:
    """The first wrong gradient in the order of the backward pass; None if all are right."""
    return next((gradient for gradient in self.gradients if not gradient.passed), None)

  def __str__(self) -> str:
    """Returns the table and what is wrong first."""
    return "\n".join([_table(self.rows()), "", self.summary(), *self.notes])

  def rows(self) -> list[list[str]]:
    """Returns the table, header first."""
    rows = [["parameter", "shape", "relative error", ""]]
    for gradient in self.gradients:
      verdict = "ok" if gradient.passed else "WRONG"
      if gradient.cause:
        verdict += f": {gradient.cause}"
      rows.append([gradient.name, str(gradient.shape), f"{gradient.error:.1e}", verdict])
    return rows

  def summary(self) -> str:
    """Returns the outcome in one or two sentences."""
    first = self.first_wrong
    if first is None:
      num = len(self.gradients)
      return f"The backward pass is right: {num} of {num} gradients agree with {self.reference}."
    before = [gradient.name for gradient in self.gradients[: self.gradients.index(first)]]
    right = f" Those computed before it are right: {', '.join(before)}." if before else ""
    text = f"The first mistake is in the gradient of {first.name}"
    text += f": {first.cause}.{right}" if first.cause else f".{right}"
    if sum(not gradient.passed for gradient in self.gradients) > 1:
      text += " Correct it first: the mistakes after it may follow from it."
    return text


def _table(rows: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  rows = [rows[0], ["-" * width for width in widths[:3]] + [""], *rows[1:]]
  lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
  return "\n".join(line.rstrip() for line in lines)


def check(
  forward: Callable,
  backward: Callable,
  inputs: Any,
  params: Any,
  *,
  max_entries: int = 200,
) -> BackwardCheck:
  """Checks a backward pass against `jax.grad` or against differences of the loss.

  Both functions are called as they are, with float64 arrays, many times, and must not change them.

  Args:
    forward: `forward(inputs, params)`, in NumPy or JAX, returns the loss, one number, or the pair
      (loss, cache). Random numbers in it must be the same in every call.
    backward: `backward(inputs, params)`, or `backward(inputs, params, cache)` if there is a cache,
      returns the gradients, laid out like `params`. In a dict they may be called dW for W.
    inputs: data, labels, masks: all that is not differentiated. An array, or a dict, list or tuple.
    params: what is differentiated, in the order of the forward pass: a dict such as
      {"W1": ..., "b1": ..., "W2": ..., "b2": ...}, possibly nested, a list, or one array.
    max_entries: how many numbers of each parameter are compared if the reference is differences,
      each of which takes some forward passes; chosen at random.

  Returns:
    The relative error of every gradient, in the order of the backward pass: by the numbers in the
    names of the parameters if all have one, the last first, else from the last parameter back.

  Raises:
    InputError: if a function fails, returns no loss or no gradients, changes its arguments, or does
      not return the same twice.
  """
  with jax.enable_x64(True):
    functions = _Functions(
      forward, backward, _to_float64(inputs, integers=False), _to_float64(params, integers=True)
    )
    loss, is_jax = functions.check_forward()
    gradients = functions.gradients()
    names = [name for name, _ in leaves(functions.params)]
    notes = [
      f"The backward pass also returns {name}, which is not a parameter."
      for name in gradients
      if name not in names
    ]
    reference = Reference(functions.loss, dict(leaves(functions.params)), is_jax, max_entries)
    checked = []
    largest = max(reference.scale(name) for name in names)
    for name in _backward_order(names):
      least = max(reference.scale(name), _SMALLEST_SHARE * largest)
      error, num_kinks = reference.error(name, gradients.get(name), least, TOLERANCE)
      if num_kinks:
        notes.append(
          f"{name}: {num_kinks} of its numbers are at a kink of the loss, where any slope between "
          "the two sides is right."
        )
      cause = ""
      if error > TOLERANCE:
        sizes = [np.shape(leaf) for _, leaf in leaves(functions.inputs)]
        cause = usual_mistakes.find(name, gradients.get(name), reference, sizes, TOLERANCE * least)
      shape = np.shape(reference.params[name])
      checked.append(CheckedGradient(name, shape, error, reference.num_compared(name), cause))
  return BackwardCheck(loss, reference.kind, tuple(checked), tuple(notes))


class _Functions:
  """The functions to check, guarded: what is wrong with them becomes an InputError."""

  def __init__(self, forward: Callable, backward: Callable, inputs: Any, params: Any):
    self._forward, self._backward = forward, backward
    self.inputs, self.params = inputs, params
    self._cache: list = []
    if not leaves(params):
      raise InputError("params has no arrays")
    for name, leaf in leaves(params):
      if not jnp.issubdtype(np.asarray(leaf).dtype, np.floating):
        raise InputError(f"params: {name} is not an array of real numbers")

  def loss(self, changed: Mapping[str, Any], example: Example | None = None) -> Any:
    """Returns the loss with some parameters replaced, which may be JAX's tracers."""
    params = _map(lambda name, leaf: changed.get(name, leaf), self.params)
    inputs = self.inputs
    if example is not None:
      inputs = _map(lambda _, leaf: _only(leaf, example), inputs)
    result = self._forward(inputs, params)
    return result[0] if isinstance(result, tuple) else result

  def check_forward(self) -> tuple[float, bool]:
    """Returns the loss, and whether it was computed in JAX."""
    result = self._call("forward", self._forward)
    loss, *self._cache = result if isinstance(result, tuple) else (result,)
    if len(self._cache) > 1:
      raise InputError("forward must return the loss or the pair (loss, cache)")
    if np.size(loss) != 1 or not np.isrealobj(np.asarray(loss)):
      raise InputError(f"forward must return one number as the loss, not shape {np.shape(loss)}")
    value = float(np.reshape(loss, ()))
    if not math.isfinite(value):
      raise InputError(f"the loss is {value}")
    again = self._call("forward", self._forward)
    again = float(np.reshape(again[0] if isinstance(again, tuple) else again, ()))
    if again != value:
      raise InputError(
        f"forward returns another loss when it is called again ({value:.6g}, then {again:.6g}): "
        "its random numbers must be the same in every call"
      )
    return value, isinstance(loss, jax.Array)

  def gradients(self) -> dict[str, np.ndarray]:
    """Returns the gradients by the parameters' names."""
    first, again = (
      dict(leaves(self._call("backward", self._backward, *copy.deepcopy(self._cache))))
      for _ in range(2)
    )
    names = {name for name, _ in leaves(self.params)}
    result = {}
    for key, leaf in first.items():
      name = key if key in names else re.sub(r"(^|/)d_?([^/]+)$", r"\1\2", key)
      try:
        result[name if name in names else key] = np.asarray(leaf, np.float64)
      except (TypeError, ValueError) as error:
        raise InputError(f"backward: the gradient {key} is not an array of numbers") from error
      if not np.array_equal(leaf, again.get(key), equal_nan=True):
        raise InputError(f"backward returns another gradient {key} when it is called again")
    return result

  def _call(self, what: str, function: Callable, *more: Any) -> Any:
    inputs, params = copy.deepcopy(self.inputs), copy.deepcopy(self.params)
    try:
      result = function(inputs, params, *more)
    except Exception as error:
      raise InputError(f"{what} failed: {brief(error)}") from error
    for kind, before, after in (("inputs", self.inputs, inputs), ("params", self.params, params)):
      after = dict(leaves(after))
      for name, leaf in leaves(before):
        if not _is_same(leaf, after.get(name)):
          raise InputError(f"{what} changes its {kind}: {name or 'the array'} differs afterwards")
    return result


def _only(leaf: Any, example: Example) -> Any:
  """Returns the part of an input that belongs to an example: all of it if it has no such axis."""
  shape = np.shape(leaf)
  if not shape or shape[example.axis] != example.batch_size:
    return leaf
  if isinstance(example.number, jax.Array):
    axis = example.axis % len(shape)
    return jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), example.number, 1, axis)
  here = slice(example.number, example.number + 1)
  return leaf[here] if example.axis == 0 else leaf[..., here]


def _is_same(left: Any, right: Any) -> bool:
  left, right = np.asarray(left), np.asarray(right)
  return left.dtype == object or np.array_equal(
    left, right, equal_nan=np.issubdtype(left.dtype, np.inexact)
  )


def leaves(tree: Any) -> list[tuple[str, Any]]:
  """Returns the names and arrays of nested dicts, lists and tuples, in their own order."""
  found: list[tuple[str, Any]] = []
  _map(lambda name, leaf: found.append((name, leaf)), tree)
  return found


def _map(
  function: Callable[[str, Any], Any],
  tree: Any,
  name: str = "",
  is_leaf: Callable[[Any], bool] = lambda _: False,
) -> Any:
  """Returns a tree in which function(name, leaf) takes the place of each leaf."""
  if tree is None:
    return None
  if is_leaf(tree) or not isinstance(tree, Mapping | list | tuple):
    return function(name or "array", tree)
  inner = {
    key: _map(function, part, f"{name}/{key}" if name else str(key), is_leaf)
    for key, part in (tree.items() if isinstance(tree, Mapping) else enumerate(tree))
  }
  if isinstance(tree, Mapping):
    return inner
  return list(inner.values()) if isinstance(tree, list) else tuple(inner.values())


def _is_numbers(tree: Any) -> bool:
  """Returns whether this is an array that is written as a list, as in [[1, 2], [3, 4]]."""
  if isinstance(tree, list | tuple):
    return len(tree) > 0 and all(isinstance(x, int | float) or _is_numbers(x) for x in tree)
  return False


def _to_float64(tree: Any, integers: bool) -> Any:
  """Returns the tree with its real numbers in float64, and, if wanted, its integers, too."""
  kinds = (np.floating, np.integer) if integers else (np.floating,)

  def convert(_, leaf):
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    is_real = any(jnp.issubdtype(array.dtype, kind) for kind in kinds)
    return array.astype(np.float64) if is_real else leaf

  return _map(convert, tree, is_leaf=_is_numbers)


def _backward_order(names: list[str]) -> list[str]:
  """Returns the names as the backward pass meets them: W2, b2 before W1, b1."""
  numbers = {name: [int(digits) for digits in re.findall(r"[0-9]+", name)] for name in names}
  backward = names[::-1]
  if all(numbers.values()):
    return sorted(backward, key=lambda name: numbers[name], reverse=True)
  return backward
