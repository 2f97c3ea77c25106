"""Networks of `jaxdl.nn.networks`, as chains of rules."""

import itertools
from collections.abc import Iterator, Mapping

from jaxdl.byhand.backprop.chain import Layer, Residual


def lenet5(params: Mapping, image_size: int, activation: str = "relu") -> list[Layer]:
  """Returns the layers of LeNet-5 for square images, which are put into 32 x 32 zeros."""
  missing = max(0, 32 - image_size)
  side = (missing // 2, missing - missing // 2)
  layers = []
  for i, padding in enumerate(((side, side), ((0, 0), (0, 0)))):
    name = f"Conv_{i}"
    layers += [Layer("conv", (params[name], (1, 1), padding), name), Layer(activation)]
    layers.append(Layer("avg_pool"))
  layers.append(Layer("flatten"))
  for i in range(2):
    layers += [_dense(params, f"Dense_{i}"), Layer(activation)]
  return [*layers, _dense(params, "Dense_2")]


def resnet(params: Mapping, depth: int, activation: str = "relu") -> list[Layer | Residual]:
  """Returns the layers of a ResNet with batch normalisation and shortcuts of 1 x 1 convolutions."""
  numbers = itertools.count()
  layers: list[Layer | Residual] = [*_convolution(params, numbers), Layer(activation)]
  for stage, block in itertools.product(range(3), range((depth - 2) // 6)):
    stride = 2 if stage and not block else 1
    branch = [*_convolution(params, numbers, stride), Layer(activation)]
    branch += _convolution(params, numbers)
    # A projection where the shape changes.
    shortcut = _convolution(params, numbers, stride, padding=0) if stride > 1 else []
    layers += [Residual(branch, shortcut), Layer(activation)]
  return [*layers, Layer("global_avg_pool"), _dense(params, "Dense_0")]


def _convolution(
  params: Mapping, numbers: Iterator[int], stride: int = 1, padding: int = 1
) -> list[Layer]:
  """Returns the next convolution, and its normalisation."""
  number = next(numbers)
  conv, norm = f"Conv_{number}", f"BatchNorm_{number}"
  sides = ((padding, padding), (padding, padding))
  return [
    Layer("conv", (params[conv], (stride, stride), sides), conv),
    Layer("batch_norm", (params[norm],), norm),
  ]


def _dense(params: Mapping, name: str) -> Layer:
  return Layer("dense", (params[name],), name)
