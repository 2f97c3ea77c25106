"""Networks that are there by name, from the standard layers of linen.

To the rest of the library they are what a user's own module is: `jaxdl.nn.models.canonical` turns
`resnet(20)` into the call `jaxdl.nn.networks:ResNet(20)`. Their fields are what may stand in the
brackets. An arm passes `num_outputs`, `kernel_init`, `bias_init`, `activation` and `dropout_rate`
to those that take them.
"""

from jaxdl.nn.networks.lenet import LeNet5
from jaxdl.nn.networks.mlp import MLP
from jaxdl.nn.networks.resnet import ResNet
from jaxdl.nn.networks.transformer import Transformer, VisionTransformer

__all__ = ("MLP", "LeNet5", "ResNet", "Transformer", "VisionTransformer")
