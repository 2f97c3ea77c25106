"""Trains a population with jaxdl for the benchmark, which times it like the peers.

  python -m experiments.jaxdl_worker SPEC.json

`experiments.peers.protocol` describes the spec and the messages on standard input and output. The
variant names the model: `{"name": ..., "model": ..., "activation": ...}`. It may set `chunk_size`
and `slice_size` as in `jaxdl.population`. It may set `cpu_layers` to false, for XLA alone, which is
an error if there are no layers in C++ anyway. Members train as in any experiment: in chunks, which
are taken from one list by as many workers as the spec has threads.
"""

import os
import sys
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import forward
from jaxdl.arm import Arm
from jaxdl.cpu import matmul
from jaxdl.data.dataset import Dataset, Split
from jaxdl.population import chunk as chunk_lib
from jaxdl.population import devices, local, plan, programs, tuning

from .peers import protocol
from .peers.protocol import Data, PeerError, Spec


class JaxdlWorker:
  """A population in training; see `protocol.Worker`."""

  def __init__(self, spec: Spec, data: Data):
    """Plans the population and puts the data on the device."""
    device = jax.local_devices()[0]
    if device.platform != spec.device:
      raise PeerError(f"JAX runs on {device.platform} here, not on {spec.device}")
    arm = _arm(spec)
    dataset = _dataset(data, max(2, spec.layers[-1].features))
    on_cpu = device.platform == "cpu"
    self._workers = [device] * spec.threads if on_cpu else jax.local_devices()
    sizes = {key: spec.variant.get(key) for key in ("chunk_size", "slice_size")}
    seeds = tuple(range(spec.num_members))
    if not spec.variant.get("cpu_layers", True):
      if matmul.why_unavailable() is not None:
        raise PeerError("there are no layers in C++ to switch off")
      os.environ[matmul.SWITCH] = "0"
      matmul.why_unavailable.cache_clear()
    kind = devices.kind_of(device)
    (self._group,) = plan.plan_groups(dataset, {"arm": arm}, seeds, spec.seed, kind, **sizes)
    if self._group.num_params != _num_params(spec, data):
      raise PeerError("the model of the variant is not the network of the spec")
    self._recipe, self._test_images = self._group.recipe, dataset.test.inputs
    self._splits = programs.put_splits(dataset, device)
    self._chunks, self._epoch = None, 0
    self.num_params, self.device = self._group.num_params, str(device)
    self.versions = {"jax": jax.__version__, "flax": version("flax")}

  def train(self, num_epochs: int, num_examples: int) -> list[float]:
    """See `protocol.Worker`."""
    if num_examples != len(self._splits[0].targets):
      raise PeerError("jaxdl trains on all examples; it has no variants to choose from by trial")
    if self._chunks is None:
      self._create()
    first = self._epoch
    self._epoch += num_epochs

    def train_chunk(place, device, _):
      bound, members = self._chunks[place]
      for epoch in range(first, first + num_epochs):
        members, metrics = bound.train_epoch(members, epoch % self._recipe.arm.num_epochs)
      self._chunks[place] = bound, jax.block_until_ready(members)
      return np.asarray(metrics.train_loss).ravel()

    losses = local.share(list(range(len(self._chunks))), self._workers, train_chunk)
    return [float(loss) for loss in np.concatenate(losses)[: self._group.num_seeds]]

  def _create(self):
    device, group, splits = self._workers[0], self._group, self._splits
    compiled = chunk_lib.compile_chunk(group, splits, device)
    bounds = [chunk_lib.bind(compiled, group, chunk, splits, device) for chunk in group.chunks()]
    self._chunks = [(bound, bound.create()) for bound in bounds]

  def predictor(self, batch_size: int, num_images: int) -> Callable[[], np.ndarray]:
    """See `protocol.Worker`. The first member predicts, one batch per call."""
    if self._chunks is None:
      self._create()
    member = jax.tree.map(lambda leaf: leaf[0, 0], self._chunks[0][1])
    recipe = tuning.specialize(self._recipe, member, 1, self._workers[0].platform)
    predict = jax.jit(
      lambda variables, images: forward.predict(recipe, variables, images),
      compiler_options=tuning.compile_options(self._workers[0].platform),
    )
    images = jnp.asarray(self._test_images[:num_images])
    batches = [images[i : i + batch_size] for i in range(0, num_images, batch_size)]

    def compute() -> np.ndarray:
      logits = [predict(member.variables, batch) for batch in batches]
      return np.concatenate(jax.device_get(logits))  # after all calls, so the device never waits

    return compute


def _arm(spec: Spec) -> Arm:
  dropout = [layer.rate for layer in spec.layers if layer.kind == "dropout"]
  augmentation = {}
  if spec.augmentation is not None:
    augmentation = {
      name: getattr(spec.augmentation, name)
      for name in ("rotation_range", "shift_range", "horizontal_flip")
    }
  return Arm(
    model=spec.variant["model"],
    activation=spec.variant.get("activation", "relu"),
    loss=spec.loss,
    optimizer=spec.optimizer,
    learning_rate=spec.learning_rate,
    batch_size=spec.batch_size,
    dropout_rate=dropout[0] if dropout else 0.0,
    num_epochs=1000,
    patience=None,
    **augmentation,
  )


def _dataset(data: Data, num_classes: int) -> Dataset:
  def split(images, labels):
    return Split(np.rint(images * 255).astype(np.uint8), labels)

  train_split = split(data.train_images, data.train_labels)
  return Dataset(
    name="benchmark",
    train=train_split,
    validation=Split(train_split.inputs[:0], train_split.targets[:0]),
    test=split(data.test_images, data.test_labels),
    class_names=tuple(map(str, range(num_classes))),
    checksum="",
  )


def _num_params(spec: Spec, data: Data) -> int:
  total = 0
  for layer, shape in protocol.input_shapes(spec.layers, data.train_images.shape[1:]):
    if layer.kind in ("conv", "dense"):
      total += (layer.size**2 if layer.kind == "conv" else 1) * shape[-1] * layer.features
      total += layer.features
  return total


if __name__ == "__main__":
  sys.exit(protocol.main(sys.argv, JaxdlWorker))
