"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning ...", section II)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


class LeNet5(nn.Module):
  """Two 5 x 5 convolutions with average pooling, then dense layers of 120 and 84 units.

  As it is usually written today: every map of the second convolution sees all maps of the first,
  poolings have no parameters, and the output layer is dense. For 32 x 32 x 1 images and ten outputs
  it has 156 + 2,416 + 48,120 + 10,164 + 850 = 61,706 parameters. Smaller images are put into the
  middle of 32 x 32 zeros, as LeCun et al. do with digits.

  Attributes:
    activation: of all layers but the last; LeCun et al. use a scaled tanh.
    num_outputs: of the last layer.
  """

  activation: Callable = nn.tanh
  num_outputs: int = 10
  kernel_init: Callable = nn.initializers.glorot_uniform()
  bias_init: Callable = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps images `[B, H, W, D]` to `[B, num_outputs]`."""
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    missing = [max(0, 32 - length) for length in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *((many // 2, many - many // 2) for many in missing), (0, 0)))
    for features in (6, 16):
      x = self.activation(nn.Conv(features, (5, 5), padding="VALID", **init)(x))
      x = nn.avg_pool(x, (2, 2), (2, 2))
    x = x.reshape(len(x), -1)  # [B, D]
    for features in (120, 84):
      x = self.activation(nn.Dense(features, **init)(x))
    return nn.Dense(self.num_outputs, **init)(x)
