"""Transformers (Vaswani et al. 2017) for images and for sequences of integers.

Both are encoders with normalisation before each part of a block, as in GPT-2 (Radford et al. 2019)
and ViT (Dosovitskiy et al. 2021).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.errors import InputError, check_integer

_SIZES = {"width": 2**14, "depth": 200, "num_heads": 2**10}


class Block(nn.Module):
  """x + attention(norm(x)), then the same with an MLP of one hidden layer and GELU."""

  num_heads: int
  mlp_width: int
  kernel_init: Callable
  bias_init: Callable

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Maps `[B, L, D]` to the same shape; `mask` `[1, 1, L, L]` is true where it attends."""
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(self.num_heads, **init)(y, mask=mask)
    y = nn.Dense(self.mlp_width, **init)(nn.LayerNorm()(x))
    return x + nn.Dense(x.shape[-1], **init)(nn.gelu(y, approximate=False))


class VisionTransformer(nn.Module):
  """Square patches of an image as a sequence, with a learned class token in front, to a head.

  By default it is sized for 32 x 32 images: 64 patches, and 1,205,898 parameters with ten outputs.
  `vit(patch_size=16, width=192, depth=12, num_heads=3)` is DeiT-Ti, which has 5,717,416 parameters
  for 224 x 224 x 3 images and 1,000 outputs (Touvron et al. 2021).

  Attributes:
    patch_size: side of a patch in pixels; it divides height and width.
    width: D.
    depth: number of blocks.
    num_heads: of the attention; divides `width`.
    mlp_ratio: width of a block's hidden layer, as a multiple of `width`.
    dropout_rate: before the output layer.
    num_outputs: of the last layer.
  """

  patch_size: int = 4
  width: int = 128
  depth: int = 6
  num_heads: int = 4
  mlp_ratio: int = 4
  dropout_rate: float = 0.0
  num_outputs: int = 10
  kernel_init: Callable = nn.initializers.glorot_uniform()
  bias_init: Callable = nn.initializers.zeros

  def __post_init__(self):
    super().__post_init__()
    _check_sizes(self)
    check_integer("patch_size", self.patch_size, 1)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images `[B, H, W, C]` to `[B, num_outputs]`."""
    if x.ndim != 4 or x.shape[1] % self.patch_size or x.shape[2] % self.patch_size:
      raise InputError(
        f"vit cuts images [B, H, W, C] into patches of {self.patch_size} x {self.patch_size} "
        f"pixels, which does not fit inputs {[*x.shape]}"
      )
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    patch = (self.patch_size, self.patch_size)
    x = nn.Conv(self.width, patch, patch, padding="VALID", **init)(x)
    x = x.reshape(len(x), -1, self.width)  # [B, L, D]
    token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
    x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
    x = _encode(self, x)[:, 0]  # [B, D]
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return nn.Dense(self.num_outputs, **init)(x)


class Transformer(nn.Module):
  """Sequences of integers to one output per sequence, the mean over positions, or one per position.

  `transformer(50257, width=768, depth=12, num_heads=12)` on sequences of 1,024 is GPT-2 small
  (Radford et al. 2019), whose 124,439,808 parameters do not count an output layer of its own.

  Attributes:
    vocabulary: the integers are 0 to vocabulary - 1.
    width: D.
    depth: number of blocks.
    num_heads: of the attention; divides `width`.
    mlp_ratio: width of a block's hidden layer, as a multiple of `width`.
    per_position: whether there is an output for each position.
    causal: whether a position sees itself and earlier positions only.
    dropout_rate: before the output layer.
    num_outputs: of the last layer.
  """

  vocabulary: int = 256
  width: int = 64
  depth: int = 2
  num_heads: int = 4
  mlp_ratio: int = 4
  per_position: bool = False
  causal: bool = False
  dropout_rate: float = 0.0
  num_outputs: int = 10
  kernel_init: Callable = nn.initializers.glorot_uniform()
  bias_init: Callable = nn.initializers.zeros

  def __post_init__(self):
    super().__post_init__()
    _check_sizes(self)
    check_integer("vocabulary", self.vocabulary, 1)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps integers `[B, L]` to `[B, num_outputs]`, or to `[B, L, num_outputs]`."""
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
      raise InputError(f"transformer takes integers [B, L], not {x.dtype} {[*x.shape]}")
    mask = nn.make_causal_mask(x[:1]) if self.causal else None  # [1, 1, L, L]
    x = nn.Embed(self.vocabulary, self.width, embedding_init=_EMBEDDING_INIT)(x)  # [B, L, D]
    x = _encode(self, x, mask)
    x = x if self.per_position else x.mean(1)
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return nn.Dense(self.num_outputs, kernel_init=self.kernel_init, bias_init=self.bias_init)(x)


# As of GPT-2, BERT and ViT.
_EMBEDDING_INIT = nn.initializers.normal(0.02)


def _encode(
  module: VisionTransformer | Transformer, x: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Adds learned positions to `[B, L, D]`, then applies blocks and a last normalisation."""
  x = x + module.param("positions", _EMBEDDING_INIT, (1, *x.shape[1:]))
  for _ in range(module.depth):
    x = Block(
      module.num_heads, module.mlp_ratio * module.width, module.kernel_init, module.bias_init
    )(x, mask)
  return nn.LayerNorm()(x)


def _check_sizes(module: VisionTransformer | Transformer):
  for name, most in _SIZES.items():
    check_integer(name, getattr(module, name), 1, most)
  check_integer("mlp_ratio", module.mlp_ratio, 1, 64)
  if module.width % module.num_heads:
    raise InputError(f"width {module.width} is no multiple of num_heads {module.num_heads}")
