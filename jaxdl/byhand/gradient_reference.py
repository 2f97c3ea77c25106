"""The right gradients of a loss: by `jax.grad`, or by differences that find their own step."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.errors import InputError, brief

# Differences start with this step, relative to the number, and quarter it.
_LARGEST_STEP, _NUM_STEPS = 1e-3, 10
# One-sided slopes that differ by more, relative to the gradient's scale, make a kink.
_KINK = 1e-3

Changed = Mapping[str, np.ndarray]  # parameters to replace, by name


class Example(NamedTuple):
  """One example of a batch."""

  number: int | jax.Array  # from 0
  batch_size: int
  axis: int  # 0 if examples are rows of the inputs, -1 if they are columns


class Reference:
  """The right gradients of a loss with respect to its parameters, or some entries of them."""

  def __init__(
    self,
    loss: Callable[[Changed, Example | None], Any],
    params: Mapping[str, Any],
    is_jax: bool,
    max_entries: int,
  ):
    """Computes them; use within `jax.enable_x64`.

    Args:
      loss: (parameters to replace, example) -> loss, of that example alone unless it is None.
      params: all parameters by name.
      is_jax: whether to try `jax.grad`.
      max_entries: how many numbers of each parameter are compared by differences.

    Raises:
      InputError: if a derivative is not finite.
    """
    self._loss, self.params = loss, {n: np.asarray(p, np.float64) for n, p in params.items()}
    gradients = self._by_jax(self.params) if is_jax else None
    self._is_jax = gradients is not None
    self.kind = "jax.grad" if self._is_jax else "differences of the loss"
    rng = np.random.default_rng(0)
    self._entries, self._values = {}, {}
    for name, param in self.params.items():
      self._entries[name] = np.arange(param.size)
      if gradients is not None:
        self._values[name] = gradients[name].ravel()
        continue
      if param.size > max_entries:
        self._entries[name] = np.sort(rng.choice(param.size, max_entries, replace=False))
      slopes = [self._slope(name, entry) for entry in self._entries[name]]
      self._values[name] = np.array(slopes)
    for name, values in self._values.items():
      if not np.isfinite(values).all():
        raise InputError(f"the derivative of the loss with respect to {name} is not finite")

  def scale(self, name: str) -> float:
    """Returns the largest size of a number of a gradient."""
    return float(np.abs(self._values[name]).max(initial=0))

  def num_compared(self, name: str) -> int:
    """Returns how many numbers of a gradient are known."""
    return len(self._entries[name])

  def values(self, name: str) -> np.ndarray:
    """Returns the numbers of a gradient that are known."""
    return self._values[name]

  def entries(self, name: str, array: np.ndarray) -> np.ndarray:
    """Returns the numbers of an array of a parameter's shape where the gradient is known."""
    return np.asarray(array).ravel()[self._entries[name]]

  def error(
    self, name: str, gradient: np.ndarray | None, scale: float, tolerance: float
  ) -> tuple[float, int]:
    """Returns the relative error of a gradient, and how many of its numbers are at a kink.

    At a kink, any number between the slopes on its two sides is right.
    """
    param = self.params[name]
    if gradient is None or gradient.shape != param.shape or not np.isfinite(gradient).all():
      return np.inf, 0
    found = self.entries(name, gradient)
    errors = np.abs(found - self._values[name])
    scale = scale or 1.0
    num_kinks = 0
    for i in np.argsort(-errors):  # the largest first: the first that is at no kink decides
      if errors[i] <= tolerance * scale:
        break
      slopes = self._sides(name, self._entries[name][i])
      slack = _KINK * scale
      is_between = min(slopes) - slack <= found[i] <= max(slopes) + slack
      if np.ptp(slopes) <= slack or not is_between:
        break
      errors[i], num_kinks = 0, num_kinks + 1
    return float(errors.max(initial=0) / scale), num_kinks

  @functools.cache  # noqa: B019  (a reference lives as long as one check)
  def by_example(self, name: str, batch_size: int, axis: int) -> np.ndarray | None:
    """Returns the gradient of every example's own loss, `[M, N]`, for a parameter of N numbers.

    None if the loss of one example alone cannot be computed.

    Args:
      name: of the parameter.
      batch_size: M.
      axis: of the examples in the inputs, 0 or -1.
    """
    param = self.params[name]

    def loss(at, index):
      return self._loss({name: at}, Example(index, batch_size, axis)).reshape(())

    try:
      if self._is_jax:
        gradients = jax.vmap(jax.grad(loss), (None, 0))(param, np.arange(batch_size))
        return np.asarray(gradients).reshape(batch_size, param.size)
      examples = [Example(index, batch_size, axis) for index in range(batch_size)]
      return np.array(
        [[self._slope(name, entry, example) for entry in range(param.size)] for example in examples]
      )
    except Exception:  # a forward pass that is not written for one example
      return None

  def _by_jax(self, at: Changed) -> dict[str, np.ndarray] | None:
    """Returns the gradients by `jax.grad`; None if the loss is not written for it."""
    try:
      gradients = jax.grad(lambda at: self._loss(at, None).reshape(()))(dict(at))
    except Exception:  # a forward pass that works, but not on traced arrays
      return None
    return {name: np.asarray(gradient) for name, gradient in gradients.items()}

  def _value(self, changed: Changed, example: Example | None = None) -> float:
    try:
      return float(np.reshape(self._loss(changed, example), ()))
    except Exception as error:
      raise InputError(f"forward failed: {brief(error)}") from error

  def _shifted(self, name: str, entry: int, step: float, example: Example | None = None) -> float:
    changed = self.params[name].copy()
    changed.flat[entry] += step
    return self._value({name: changed}, example)

  def _slope(self, name: str, entry: int, example: Example | None = None) -> float:
    """Returns a derivative by central differences, extrapolated to step 0 (Ridders 1982).

    The step is quartered until two estimates agree; of all, those that agree best are taken.
    """
    step = _LARGEST_STEP * max(1.0, abs(float(self.params[name].flat[entry])))
    best, least = np.nan, np.inf
    slopes, estimates = [], []
    for _ in range(_NUM_STEPS):
      up, down = (self._shifted(name, entry, sign * step, example) for sign in (1, -1))
      slopes.append((up - down) / (2 * step))
      if len(slopes) > 1:
        estimates.append((16 * slopes[-1] - slopes[-2]) / 15)
      if len(estimates) > 1:
        difference = abs(estimates[-1] - estimates[-2])
        if difference < least:
          best, least = estimates[-1], difference
        if difference <= 1e-9 * abs(best):
          break
      step /= 4
    return best

  def _sides(self, name: str, entry: int) -> tuple[float, float]:
    """Returns the slopes to the left and to the right of a number."""
    step = 1e-6 * max(1.0, abs(float(self.params[name].flat[entry])))
    here = self._value({})
    right = (self._shifted(name, entry, step) - here) / step
    left = (here - self._shifted(name, entry, -step)) / step
    return left, right
