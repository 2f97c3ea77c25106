"""Finds the cause of a wrong gradient by trying the usual mistakes.

The mistakes inside a layer are found from outside: the gradient of one example's loss with respect
to a bias is the error signal that the layer gets from this example. The signals of this layer and
the next determine what the backward pass would return if it had left out the activation's
derivative, transposed the weights wrongly, or summed over the wrong axis.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.byhand.gradient_reference import Reference

# Finding the signals takes some forward passes of one example for each of their numbers.
_MAX_SIGNAL = 20_000


def find(
  name: str,
  gradient: np.ndarray | None,
  reference: Reference,
  input_shapes: Sequence[tuple[int, ...]],
  slack: float,
) -> str:
  """Returns the cause of a wrong gradient in a few words, or nothing if no usual mistake fits.

  Args:
    name: of the parameter.
    gradient: what the backward pass returned for it; None if nothing.
    reference: the right gradients.
    input_shapes: of the arrays that are not differentiated; the first axis is that of examples.
    slack: how far off the right gradient may be.
  """
  if gradient is None:
    return "the backward pass does not return it"
  if not np.isfinite(gradient).all():
    return "it is not finite"
  if not gradient.any():
    return "it is all zeros"
  mistakes = _Mistakes(name, gradient, reference, input_shapes, slack)
  shape = reference.params[name].shape
  if gradient.shape != shape:
    fallback = f"its shape is {gradient.shape} instead of {shape}"
    return next(mistakes.of_shape(), None) or next(mistakes.of_layer(), None) or fallback
  return (
    next(mistakes.of_numbers(), None)
    or next(mistakes.of_layer(), None)
    or next(mistakes.of_part(), "")
  )


class _Link(NamedTuple):
  """What connects a layer with the next."""

  name: str  # of the weights
  weights: np.ndarray  # [N, N']
  signals: np.ndarray  # [M, N'], of the next layer


def _divide(signals: np.ndarray, back: np.ndarray) -> np.ndarray:
  return np.divide(signals, back, out=np.zeros(back.shape), where=back != 0)


def _wrong_slopes(a: np.ndarray, slopes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
  """Yields usual wrong derivatives of a sigmoid or tanh: what to say, and their values.

  Args:
    a: outputs of the activation.
    slopes: its derivatives, 0 where they are not known.
  """
  known = slopes != 0
  with np.errstate(all="ignore"):
    if np.allclose(slopes[known], (a * (1 - a))[known], rtol=1e-4):
      z, right = np.log(a / (1 - a)), "a (1 - a), with a = sigmoid(z)"
      again = 1 / (1 + np.exp(-a))
      wrong = {"a (1 + a)": a * (1 + a), "z (1 - z)": z * (1 - z), "1 - a**2": 1 - a**2}
      wrong["sigmoid(a) (1 - sigmoid(a))"] = again * (1 - again)
    elif np.allclose(slopes[known], (1 - a**2)[known], rtol=1e-4):
      z, right = np.arctanh(a), "1 - a**2, with a = tanh(z)"
      wrong = {"1 + a**2": 1 + a**2, "1 - z**2": 1 - z**2, "a (1 - a)": a * (1 - a)}
      wrong |= {"1 - tanh(a)**2": 1 - np.tanh(a) ** 2, "1 - a": 1 - a}
    else:
      return
    for said, values in wrong.items():
      yield f"{said} instead of {right}", values


class _Mistakes:
  """The usual mistakes, each yielded if it explains the gradient."""

  def __init__(
    self,
    name: str,
    gradient: np.ndarray,
    reference: Reference,
    input_shapes: Sequence[tuple[int, ...]],
    slack: float,
  ):
    self._name, self._gradient, self._reference = name, gradient, reference
    self._param = reference.params[name]
    self._right = reference.values(name)
    self._input_shapes = [shape for shape in input_shapes if shape]
    self._slack = 10 * slack

  def _is_right(self, array: np.ndarray) -> bool:
    """Returns whether an array is the right gradient."""
    if array.shape != self._param.shape:
      return False
    return np.abs(self._reference.entries(self._name, array) - self._right).max() <= self._slack

  def _is_returned(self, array: np.ndarray) -> bool:
    """Returns whether an array is what the backward pass returned, and not the right gradient."""
    array = np.asarray(array)
    if array.size != self._gradient.size or self._is_right(array.reshape(self._gradient.shape)):
      return False
    return np.abs(array.ravel() - self._gradient.ravel()).max() <= self._slack

  def of_shape(self) -> Iterator[str]:
    """Yields the change of shape that makes a gradient right."""
    shape = self._param.shape
    if self._is_right(self._gradient.T):
      yield "it is transposed"
    for axis, size in enumerate(self._gradient.shape):
      if size == 1:
        continue
      for function, word in ((np.sum, "summed"), (np.mean, "averaged")):
        reduced = function(self._gradient, axis=axis)
        if reduced.size == self._param.size and self._is_right(reduced.reshape(shape)):
          yield f"it is not {word} over axis {axis}, of {size} numbers"
    if self._gradient.size == self._param.size and self._is_right(self._gradient.reshape(shape)):
      yield f"its numbers are right, but its shape is {self._gradient.shape} instead of {shape}"

  def of_numbers(self) -> Iterator[str]:
    """Yields the factor, the transposition or the regularisation that makes a gradient right."""
    found = self._reference.entries(self._name, self._gradient)
    square = float(self._right @ self._right)
    if square > 0:
      factor = float(found @ self._right) / square
      fits = np.abs(found - factor * self._right).max() <= self._slack * max(1, abs(factor))
      text = self._say_factor(factor)
      # A single number is always some multiple of another.
      if fits and (self._param.size > 1 or "times" not in text):
        yield text
    if self._gradient.ndim == 2 and self._is_right(self._gradient.T):
      yield "it is transposed"
    if self._gradient.ndim > 1 and self._is_right(np.flip(self._gradient, axis=(0, 1))):
      yield "its first two axes are reversed"
    values, off = self._reference.entries(self._name, self._param), found - self._right
    if self._param.size > 1 and float(values @ values) > 0:
      factor = float(off @ values) / float(values @ values)
      if np.abs(off - factor * values).max() <= self._slack:
        yield f"it is off by {factor:.4g} times {self._name}: the gradient of a penalty is wrong"

  def _say_factor(self, factor: float) -> str:
    """Says what it means that a gradient is so many times the right one."""

    def is_factor(number):
      return abs(abs(factor) - number) <= 1e-4 * number

    sign = "its sign is wrong" if factor < 0 else ""
    if is_factor(1):
      return sign
    sizes = {shape[0]: f"{shape[0]} examples" for shape in self._input_shapes[::-1]}
    for shape in self._input_shapes:
      for size in (*shape[1:], int(np.prod(shape))):
        sizes.setdefault(size, f"{size} numbers")
    text = f"it is {abs(factor):.6g} times the right one"
    for size, what in sizes.items():
      if size > 1 and is_factor(size):
        text = f"the factor 1/{size} of the mean over {what} is missing"
        text += ", or there is a factor 2 too many" if size == 2 else ""
      elif size > 1 and is_factor(1 / size):
        text = f"the factor 1/{size} of the mean over {what} is there twice"
        text += ", or it is averaged instead of summed" if self._param.ndim < 2 else ""
        text += ", or a factor 2 is missing" if size == 2 else ""
      else:
        continue
      break
    else:
      text = "a factor 2 is missing" if is_factor(0.5) else text
      text = "there is a factor 2 too many" if is_factor(2) else text
    return f"{sign}, and {text}" if sign else text

  # --- Inside a layer ---

  def of_layer(self) -> Iterator[str]:
    """Yields mistakes in a bias's gradient, from the error signals of its layer and the next."""
    signals = self._signals(self._name)
    if signals is None:
      return
    if self._is_returned(signals.sum(axis=1)):
      yield "it is summed over the wrong axis"
    if len(signals) > 1:
      for row, word in ((0, "first"), (-1, "last")):
        if self._is_returned(signals[row]) or self._is_returned(len(signals) * signals[row]):
          yield f"it is of the {word} example only, not summed over all"
    link = self._next(self._name, signals)
    if link is not None:
      yield from self._of_activation(signals, link)

  def _of_activation(self, signals: np.ndarray, link: _Link) -> Iterator[str]:
    """Yields mistakes on the way from the next layer's signal to this layer's."""
    back = link.signals @ link.weights.T  # [M, N], with respect to the layer's output
    slopes = _divide(signals, back)  # of the activation
    if self._is_returned(back.sum(axis=0)):
      yield "the derivative of the activation is missing"
    if self._is_returned((signals * slopes).sum(axis=0)):
      yield "the derivative of the activation is there twice"
    if self._is_returned(np.maximum(back, 0).sum(axis=0)):
      yield "the mask of ReLU is taken from the gradient, not from the layer"
    if len(link.weights) == len(link.weights.T) and self._is_returned(
      (link.signals @ link.weights * slopes).sum(axis=0)
    ):
      yield f"the gradient goes back through {link.name} transposed wrongly"
    if set(np.unique(np.round(slopes, 6))) == {0.0, 1.0} and self._is_returned(
      (back * (1 - slopes)).sum(axis=0)
    ):
      yield "the mask of ReLU is the wrong way round"
    outputs = self._outputs(link)
    for said, wrong in () if outputs is None else _wrong_slopes(outputs, slopes):
      if np.isfinite(wrong).all() and self._is_returned((back * wrong).sum(axis=0)):
        yield f"the derivative of the activation is {said}"
    for other in self._reference.params:
      theirs = None if other == self._name else self._signals(other)
      if theirs is None or theirs.shape != back.shape:
        continue
      their_link = self._next(other, theirs)
      if their_link is not None:
        slopes = _divide(theirs, their_link.signals @ their_link.weights.T)
        if self._is_returned((back * slopes).sum(axis=0)):
          yield f"the derivative of the activation is taken in the layer of {other}"

  def _outputs(self, link: _Link) -> np.ndarray | None:
    """Returns the layer's output `[M, N]`, with examples in rows; None if it cannot be found.

    The gradient of one example with respect to the next layer's weights is the outer product of its
    output and of the next layer's signal.
    """
    num, shape = len(link.signals), link.weights.shape
    if num * link.weights.size > _MAX_SIGNAL or self._reference.params[link.name].shape != shape:
      return None
    gradients = self._reference.by_example(link.name, num, 0)
    squares = (link.signals**2).sum(axis=1, keepdims=True)  # [M, 1]
    if gradients is None or not squares.all():
      return None
    values = self._reference.values(link.name)
    for scale in (1 / num, 1):
      right = self._reference.entries(link.name, scale * gradients.sum(axis=0).reshape(shape))
      if np.allclose(right, values, rtol=1e-5, atol=self._slack):
        products = scale * gradients.reshape(num, *shape) * link.signals[:, None]
        return products.sum(axis=2) / squares
    return None

  def _next(self, name: str, signals: np.ndarray) -> _Link | None:
    """Returns the link from the layer with a bias to the next; None if there is none."""
    params = self._reference.params
    after = list(params)[list(params).index(name) + 1 :]
    for weights_name, bias_name in itertools.product(after, after):
      shape = (signals.shape[1], params[bias_name].size)
      weights = params[weights_name]
      if weights.ndim != 2 or shape not in (weights.shape, weights.shape[::-1]):
        continue
      next_signals = self._signals(bias_name)
      if next_signals is not None and len(next_signals) == len(signals):
        is_column = params[name].ndim == 2 and params[name].shape[1] == 1
        weights = weights.T if is_column or weights.shape != shape else weights
        return _Link(weights_name, weights, next_signals)
    return None

  def _signals(self, name: str) -> np.ndarray | None:
    """Returns the error signal `[M, N]` of the layer with a bias; None if it cannot be found."""
    param, values = self._reference.params[name], self._reference.values(name)
    if param.size != max(param.shape, default=1):
      return None
    layouts = {(shape[0], False) for shape in self._input_shapes}
    if param.ndim == 2 and param.shape[1] == 1:  # examples are columns
      layouts = {(shape[-1], True) for shape in self._input_shapes} | layouts
    for num, is_column in sorted(layouts, reverse=True):
      if num * param.size > _MAX_SIGNAL:
        continue
      signals = self._reference.by_example(name, num, -1 if is_column else 0)
      if signals is None:
        continue
      for scale in (1 / num, 1):  # the loss is a mean, or a sum
        right = self._reference.entries(name, scale * signals.sum(axis=0))
        if np.allclose(right, values, rtol=1e-5, atol=self._slack):
          return scale * signals
    return None

  def of_part(self) -> Iterator[str]:
    """Yields which numbers are wrong if it is only some of them."""
    found = self._reference.entries(self._name, self._gradient)
    wrong = np.abs(found - self._right) > self._slack
    if 0 < wrong.sum() < 0.9 * len(wrong):
      yield f"{wrong.sum()} of {len(wrong)} numbers are wrong"
