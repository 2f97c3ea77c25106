"""Initial weights: name -> (key, shape, value) -> array, or a function of the user's own.

The definitions are those of keras.initializers, which the course uses: a bias of n units has
fan_in = fan_out = n, `random_uniform` means U(-0.05, 0.05), `random_normal` means N(0, 0.05^2), and
the variance-scaling normals are truncated at two standard deviations.

Each initializer has at most one continuous parameter, its `value`, which may be traced. Arms can
thus differ in the scale of their initial weights and share one compiled program. Initializers with
the same distribution draw the same underlying numbers from a key, which keeps the arms of a seed
paired.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl import calls
from jaxdl.calls import Argument, Call
from jaxdl.errors import InputError

# Standard deviation of N(0, 1) truncated to [-2, 2]; dividing by it restores a variance of 1.
_TRUNCATED_STDDEV = 0.87962566103423978


def fans(shape: Sequence[int]) -> tuple[int, int]:
  """Returns (fan_in, fan_out) as Keras defines them.

  Args:
    shape: `[n]` of a bias gives (n, n); `[D_in, D_out]` of a dense kernel gives (D_in, D_out);
      `[H, W, D_in, D_out]` of a convolution gives (H * W * D_in, H * W * D_out).
  """
  if len(shape) == 1:
    return shape[0], shape[0]
  receptive_field = math.prod(shape[:-2])
  return receptive_field * shape[-2], receptive_field * shape[-1]


def _variance_scaling(scale: float, mode: str, distribution: str) -> Callable:
  """Returns an initializer with variance `gain^2 * scale / fan` (Glorot & Bengio 2010, He 2015)."""

  def draw(key, shape, gain):
    fan_in, fan_out = fans(shape)
    variance = scale / {"fan_in": fan_in, "fan_avg": (fan_in + fan_out) / 2}[mode]
    if distribution == "uniform":
      return gain * math.sqrt(3 * variance) * jax.random.uniform(key, shape, minval=-1, maxval=1)
    stddev = math.sqrt(variance) / _TRUNCATED_STDDEV
    return gain * stddev * jax.random.truncated_normal(key, -2, 2, shape)

  return draw


def _random_uniform(key, shape, limit):
  return limit * jax.random.uniform(key, shape, minval=-1, maxval=1)


def _random_normal(key, shape, stddev):
  return stddev * jax.random.normal(key, shape)


def _constant(key, shape, value):
  del key
  return jnp.full(shape, value, jnp.float32)


def _orthogonal(key, shape, gain):
  """Makes the rows or the columns, whichever are fewer, orthonormal times `gain` (Saxe 2014)."""
  return gain * jax.nn.initializers.orthogonal()(key, shape, jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Family:
  draw: Callable  # (key, shape, value) -> array of that shape, float32
  default: float | None  # of `value`; None if the initializer takes no value
  min_ndim: int = 1


_FAMILIES = {
  "constant": _Family(_constant, 0.0),
  "glorot_normal": _Family(_variance_scaling(1, "fan_avg", "normal"), 1.0),
  "glorot_uniform": _Family(_variance_scaling(1, "fan_avg", "uniform"), 1.0),
  "he_normal": _Family(_variance_scaling(2, "fan_in", "normal"), 1.0),
  "he_uniform": _Family(_variance_scaling(2, "fan_in", "uniform"), 1.0),
  "lecun_normal": _Family(_variance_scaling(1, "fan_in", "normal"), 1.0),
  "ones": _Family(lambda key, shape, _: jnp.ones(shape), None),
  "orthogonal": _Family(_orthogonal, 1.0, min_ndim=2),
  "random_normal": _Family(_random_normal, 0.05),
  "random_uniform": _Family(_random_uniform, 0.05),
  "zeros": _Family(lambda key, shape, _: jnp.zeros(shape), None),
}
NAMES = tuple(_FAMILIES)


def parse(spec: str | Call, *, min_ndim: int = 1) -> tuple[str | Call, dict[str, float]]:
  """Reads an initializer from a setting.

  Args:
    spec: a name, `"glorot_uniform"`, or a name with its parameter, `"random_normal(0.1)"`: the
      standard deviation of `random_normal`, the limit of `random_uniform`, the value of `constant`,
      a factor for the others (`ones` and `zeros` take none). Or a call of a function
      `(key, shape, dtype) -> array`, or of one that makes such a function:
      `flax.linen.initializers:he_normal()`.
    min_ndim: the smallest number of dimensions of the arrays to be drawn: 1 for biases, 2 for
      kernels.

  Returns:
    `(name, {"value": value})`, without a value if it takes none; `(call, {})` of a call.

  Raises:
    InputError: for an unknown name, a parameter that is not a finite number, a negative spread, or
      an initializer that needs more dimensions.
  """
  if calls.is_importable(spec):
    return Call.of(spec), {}
  known = {
    name: () if family.default is None else (_argument(name, family.default),)
    for name, family in _FAMILIES.items()
  }
  name, values = calls.parse("initializer", spec, known)
  if _FAMILIES[name].min_ndim > min_ndim:
    raise InputError(
      f"initializer {name!r} needs at least {_FAMILIES[name].min_ndim} dimensions; a bias has one"
    )
  return name, values


def _argument(name: str, default: float) -> Argument:
  if name == "constant":
    return Argument("value", lambda _: True, "a finite number", default)
  return Argument("value", lambda value: value >= 0, "a spread, a finite number >= 0,", default)


def select(names: Sequence[str | Call], index: jax.Array, values: jax.Array) -> Callable:
  """Returns an initializer for flax modules that is chosen by a traced index.

  Args:
    names: the initializers to choose from, static.
    index: `[]` int32, position in `names`.
    values: `[P]` float32, the parameter of the chosen initializer, if it takes one.

  Returns:
    A function `(key, shape, dtype) -> array`. Under `vmap` every branch is computed, which costs
    little because weights are drawn once per run.
  """

  def init(key, shape, dtype=jnp.float32):
    branches = [
      lambda values, name=name: _draw(name, key, shape, values).astype(dtype) for name in names
    ]
    return lax.switch(index, branches, values)

  return init


def _draw(name: str | Call, key: jax.Array, shape: Sequence[int], values: jax.Array) -> jax.Array:
  if isinstance(name, Call):
    return name.function()(key, shape, jnp.float32)
  family = _FAMILIES[name]
  return family.draw(key, shape, None if family.default is None else values[0])


def draw(spec: str, key: jax.Array, shape: Sequence[int]) -> np.ndarray:
  """Returns one float32 array, e.g. `draw("he_normal", jax.random.key(0), (784, 128))`."""
  name, values = parse(spec, min_ndim=len(shape))
  return np.asarray(_draw(name, key, tuple(shape), np.array([*values.values()], np.float32)))
