"""Models: name -> linen module that maps images `[B, H, W, D]` in [0, 1] to logits `[B, C]`."""

from collections.abc import Callable

import flax.linen as nn
import jax

from jaxdl.errors import unknown_name
from jaxdl.layers import Conv, Dropout

# All of them increase, which is what lets a CNN pool before the activation.
_ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": nn.tanh}
ACTIVATIONS = tuple(_ACTIVATIONS)


class CNN(nn.Module):
  """Blocks of 3 x 3 convolution, 2 x 2 max pooling and activation, then dropout and a dense output.

  With features (32, 64), 28 x 28 x 1 images and one output it has 320 + 18,496 + 1,601 = 20,417
  parameters. Pooling comes before the activation: every one of `ACTIVATIONS` is monotone, so they
  commute with a maximum, and an activation of a quarter of the values is cheaper.
  """

  num_outputs: int
  kernel_init: Callable
  bias_init: Callable
  dropout_rate: float
  features: tuple[int, ...] = (32, 64)
  activation: str = "relu"

  @nn.compact
  def __call__(self, images: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
    """Returns logits `[B, num_outputs]`; `dropout_keys` is `[B]`, or None when evaluating."""
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    x = images
    for features in self.features:
      x = _ACTIVATIONS[self.activation](Conv(features, pool=True, **init)(x))
    x = x.reshape(x.shape[0], -1)  # [B, D]
    x = Dropout(self.dropout_rate)(x, dropout_keys)
    return nn.Dense(self.num_outputs, **init)(x)


class MLP(nn.Module):
  """Dense layers with activation and dropout on a flattened image, then a dense output.

  With hidden (128, 64), 28 x 28 x 1 images and ten outputs it has 109,386 parameters.
  """

  num_outputs: int
  kernel_init: Callable
  bias_init: Callable
  dropout_rate: float
  hidden: tuple[int, ...] = (128, 64)
  activation: str = "relu"

  @nn.compact
  def __call__(self, images: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
    """Returns logits `[B, num_outputs]`; `dropout_keys` is `[B]`, or None when evaluating."""
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    x = images.reshape(images.shape[0], -1)  # [B, D]
    for features in self.hidden:
      x = _ACTIVATIONS[self.activation](nn.Dense(features, **init)(x))
    x = Dropout(self.dropout_rate)(x, dropout_keys)
    return nn.Dense(self.num_outputs, **init)(x)


_MODELS = {"cnn_binary": CNN, "mlp": MLP}
NAMES = tuple(_MODELS)


def create(name: str, activation: str = "relu", **settings) -> nn.Module:
  """Returns the model of that name.

  Args:
    name: one of `NAMES`.
    activation: one of `ACTIVATIONS`, of the hidden layers.
    **settings: `num_outputs`, `kernel_init`, `bias_init`, `dropout_rate`, as the classes above have
      them.

  Raises:
    InputError: for an unknown name.
  """
  if name not in _MODELS:
    raise unknown_name("model", name, _MODELS)
  if activation not in _ACTIVATIONS:
    raise unknown_name("activation", activation, _ACTIVATIONS)
  return _MODELS[name](activation=activation, **settings)


def is_convolutional(name: str) -> bool:
  """Whether the model of that name has convolutions, whose patches outgrow the cache."""
  return _MODELS.get(name) is CNN
