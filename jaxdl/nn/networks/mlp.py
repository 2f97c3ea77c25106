"""A multilayer perceptron with normalisation."""

from collections.abc import Callable

import flax.linen as nn
import jax

from jaxdl.errors import InputError, check_integer, show
from jaxdl.nn.networks.normalization import check_norm, normalization


class MLP(nn.Module):
  """Dense layers, each followed by normalisation and activation, then dropout and an output layer.

  With the default sizes, on 28 x 28 x 1 images and with ten outputs, it has the 109,386 parameters
  of `mlp` and a scale and a bias for each of 192 units: 109,770.

  Attributes:
    hidden: sizes of the hidden layers.
    norm: as `jaxdl.nn.networks.normalization` has it.
    activation: of the hidden layers.
    dropout_rate: before the output layer.
    num_outputs: of the last layer.
  """

  hidden: tuple[int, ...] = (128, 64)
  norm: str = "batch"
  activation: Callable = nn.relu
  dropout_rate: float = 0.0
  num_outputs: int = 10
  kernel_init: Callable = nn.initializers.glorot_uniform()
  bias_init: Callable = nn.initializers.zeros

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.hidden, tuple) or not self.hidden:
      raise InputError(f"hidden must be the sizes of hidden layers, not {show(self.hidden)}")
    for size in self.hidden:
      check_integer("a size of hidden", size, 1, 2**16)
    check_norm(self.norm, self.hidden)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps `[B, ...]` to `[B, num_outputs]`."""
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    x = x.reshape(len(x), -1)  # [B, D]
    for size in self.hidden:
      x = nn.Dense(size, **init)(x)
      x = self.activation(normalization(self.norm, train)(x))
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return nn.Dense(self.num_outputs, **init)(x)
