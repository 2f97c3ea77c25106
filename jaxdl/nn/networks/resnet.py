"""Residual networks for small images (He, Zhang, Ren & Sun 2016, section 4.2)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError, check_integer, show, unknown_name
from jaxdl.nn.networks.normalization import check_norm, normalization

MAX_DEPTH = 110
SHORTCUTS = ("A", "B", "none")


class ResNet(nn.Module):
  """A convolution, three stages of (depth - 2) / 6 blocks each, global average pooling, and a head.

  The stages have `width`, 2 `width` and 4 `width` channels; the first block of the second and the
  third halves height and width. For 32 x 32 x 3 images, ten outputs, width 16 and shortcuts A,
  `resnet(20)` has 269,722 parameters and `resnet(110)` 1,727,962; He et al. round to 0.27 and 1.7
  million.

  Attributes:
    depth: 8, 14, 20, ... 110: the number of layers with kernels, those of shortcuts not counted.
    width: channels of the first stage.
    norm: as `jaxdl.nn.networks.normalization` has it; without one, convolutions have a bias.
    shortcut: of a block that changes the shape. "A": every other pixel, with zeros for the new
      channels, which has no parameters; "B": a 1 x 1 convolution, normalised. "none": the plain
      network of He et al., in which no block has a shortcut.
    activation: of all layers but the last.
    num_outputs: of the last layer.
  """

  depth: int = 20
  width: int = 16
  norm: str = "batch"
  shortcut: str = "A"
  activation: Callable = nn.relu
  num_outputs: int = 10
  kernel_init: Callable = nn.initializers.he_normal()
  bias_init: Callable = nn.initializers.zeros

  def __post_init__(self):
    super().__post_init__()
    check_integer("depth of a ResNet", self.depth, 8, MAX_DEPTH)
    if self.depth % 6 != 2:
      raise InputError(f"depth of a ResNet must be 8, 14, 20, ..., 6 n + 2, not {show(self.depth)}")
    check_integer("width of a ResNet", self.width, 1, 2**12)
    check_norm(self.norm, (self.width,))
    if self.shortcut not in SHORTCUTS:
      raise unknown_name("shortcut", self.shortcut, SHORTCUTS)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images `[B, H, W, D]` to `[B, num_outputs]`."""
    x = self._conv(x, self.width)
    x = self.activation(normalization(self.norm, train)(x))
    for stage in range(3):
      for block in range((self.depth - 2) // 6):
        x = self._block(x, self.width * 2**stage, 2 if stage and not block else 1, train)
    x = x.mean((1, 2))  # [B, D]
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    return nn.Dense(self.num_outputs, **init)(x)

  def _block(self, x: jax.Array, features: int, stride: int, train: bool) -> jax.Array:
    """Maps `[B, H, W, D]` to `[B, H / stride, W / stride, features]`: x plus two convolutions.

    Without a shortcut, the two convolutions alone.
    """
    y = self._conv(x, features, stride)
    y = self.activation(normalization(self.norm, train)(y))
    y = normalization(self.norm, train)(self._conv(y, features))
    if self.shortcut == "none":
      return self.activation(y)
    if x.shape == y.shape:
      return self.activation(x + y)
    if self.shortcut == "B":
      x = normalization(self.norm, train)(self._conv(x, features, stride, size=1))
    else:
      x = x[:, ::stride, ::stride]
      x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
    return self.activation(x + y)

  def _conv(self, x: jax.Array, features: int, stride: int = 1, size: int = 3) -> jax.Array:
    """Convolves with a kernel of odd size, padded with `size // 2` zeros on each side."""
    return nn.Conv(
      features,
      (size, size),
      (stride, stride),
      padding=size // 2,
      use_bias=self.norm == "none",
      kernel_init=self.kernel_init,
      bias_init=self.bias_init,
    )(x)
