"""The workloads of the benchmark: networks, their data, and the arithmetic of training them."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxdl import data
from jaxdl.data.dataset import Dataset
from jaxdl.nn import models
from jaxdl.optim import losses

from .peers import protocol

_AUGMENTATION = ("rotation_range", "shift_range", "horizontal_flip")


@dataclasses.dataclass(frozen=True)
class Workload:
  """One workload of a benchmark's config, with its data.

  Attributes:
    config: the workload's part of the config.
    dataset: the data, in memory.
    path: npz file from which workers read the same data.
  """

  config: ConfigDict
  dataset: Dataset
  path: pathlib.Path

  @property
  def layers(self) -> list[dict[str, Any]]:
    """The network, layer by layer, as `layers` returns it."""
    return layers(self.config, self.dataset.num_classes)

  @property
  def flops(self) -> int:
    """Floating-point operations per training example, as `training_flops` counts them."""
    return training_flops(self.layers, self.dataset.train.inputs.shape[1:])

  @property
  def batch_size(self) -> int:
    """The batch size of the config, but at most the number of training examples."""
    return min(self.config.batch_size, len(self.dataset.train))

  @property
  def spec(self) -> dict[str, Any]:
    """The fields of `experiments.peers.protocol.Spec` that describe the workload."""
    augmentation = {key: self.config[key] for key in _AUGMENTATION}
    return {
      "data": str(self.path),
      "layers": self.layers,
      **{key: self.config[key] for key in ("loss", "optimizer", "learning_rate")},
      "batch_size": self.batch_size,
      "augmentation": augmentation if any(augmentation.values()) else None,
    }


def load(name: str, config: ConfigDict, data_dir: str | None, folder: pathlib.Path) -> Workload:
  """Loads a workload's data and writes it to a file in a folder. Raises InputError."""
  dataset = data.load(config.dataset, data_dir=data_dir)
  if config.classes:
    dataset = data.select_classes(dataset, tuple(config.classes))
  if config.num_train:
    dataset = data.take_train(dataset, config.num_train)
  path = folder / f"{name}.npz"
  np.savez(
    path,
    train_images=dataset.train.inputs,
    train_labels=dataset.train.targets,
    test_images=dataset.test.inputs,
    test_labels=dataset.test.targets,
  )
  return Workload(config, dataset, path)


def layers(workload: ConfigDict, num_classes: int) -> list[dict[str, Any]]:
  """Returns the network of a workload as fields of `experiments.peers.protocol.Layer`."""
  outputs = losses.num_outputs(workload.loss, num_classes)
  settings = {"kernel_init": None, "bias_init": None, "dropout_rate": workload.dropout_rate}
  model = models.create(workload.model, workload.activation, num_outputs=outputs, **settings)
  names = models.hidden_activations(workload.model, workload.activation)
  found = [
    {
      "kind": "conv",
      "features": features,
      "size": 3,
      "pool": block < model.num_pooled,
      "activation": workload.activation,
    }
    for block, features in enumerate(getattr(model, "features", ()))
  ]
  found.append({"kind": "flatten"})
  for features, name in zip(model.hidden, names, strict=True):
    found.append({"kind": "dense", "features": features, "activation": name})
  if workload.dropout_rate > 0:
    found.append({"kind": "dropout", "rate": workload.dropout_rate})
  return [*found, {"kind": "dense", "features": outputs, "activation": None}]


def training_flops(network: Sequence[Mapping[str, Any]], image_shape: Sequence[int]) -> int:
  """Returns the floating-point operations of the matrix products per training example.

  A weight takes two operations at each position where it is used, three times: in the forward pass,
  for its gradient, and for the gradient of the layer's input, which the first layer does not need.
  Outputs that pooling drops are not counted, and neither are operations other than products.
  """
  first, *others = _products(network, image_shape)
  return 2 * (2 * first + 3 * sum(others))


def _products(network: Sequence[Mapping[str, Any]], image_shape: Sequence[int]) -> Iterator[int]:
  """Yields the number of multiplications in the forward pass of each layer with weights."""
  built = [protocol.build(protocol.Layer, layer, "layer") for layer in network]
  for layer, shape in protocol.input_shapes(built, tuple(image_shape)):
    if layer.kind == "dense":
      yield shape[0] * layer.features
    elif layer.kind == "conv":
      height, width = (side - layer.size + 1 for side in shape[:2])
      if layer.pool:
        height, width = height // 2 * 2, width // 2 * 2
      yield height * width * layer.size**2 * shape[2] * layer.features
