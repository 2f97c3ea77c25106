"""The networks that the GPU check times."""

from typing import NamedTuple

import flax.linen as nn

from jaxdl.arm import Arm
from jaxdl.nn.networks import ResNet

_PATIENT = {"patience": None, "num_epochs": 1_000}

_CLASSES = {"loss": "categorical_cross_entropy", **_PATIENT}


class Workload(NamedTuple):
  """A network of the coursework, as the benchmark has it.

  Attributes:
    arm: its settings.
    data: name of its data in `Part.data`.
    num_train: examples of an epoch that is timed, in whole batches.
    flops: floating-point operations of the products per training example, forwards and backwards.
  """

  arm: Arm
  data: str
  num_train: int
  flops: int


# Operations: two a product; the first layer takes two thirds, since its inputs have no gradient.
WORKLOADS = {
  "cnn_binary": Workload(
    Arm(batch_size=512, **_PATIENT), "two", 4096, 4 * 26**2 * 288 + 6 * (100 * 288 * 64 + 1600)
  ),
  "mlp_minibatch": Workload(
    Arm(model="mlp", batch_size=32, dropout_rate=0.0, **_CLASSES),
    "mnist",
    4096,
    4 * 784 * 128 + 6 * (128 * 64 + 640),
  ),
  "cifar_mlp": Workload(
    Arm(model="cifar_mlp", batch_size=64, dropout_rate=0.0, **_CLASSES),
    "cifar10",
    4096,
    4 * 3072 * 512 + 6 * (512 * 256 + 2560),
  ),
  "resnet8": Workload(
    Arm(model="resnet(8)", batch_size=64, **_CLASSES),
    "cifar10",
    1024,
    4 * 1024 * 27 * 16
    + 6 * (2 * 1024 * 144 * 16 + 256 * (144 + 288) * 32 + 64 * (288 + 576) * 64 + 640),
  ),
}


class XlaConv(nn.Conv):
  """A convolution that stays XLA's own; `nn.Conv` itself is computed as a product."""


class NativeResNet(ResNet):
  """A ResNet with XLA's own convolutions."""

  def _conv(self, x, features, stride=1, size=3):
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    conv = XlaConv(features, (size, size), (stride, stride), size // 2, use_bias=False, **init)
    return conv(x)
