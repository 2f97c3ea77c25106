"""Trains a network with Keras, on TensorFlow or on JAX; the caller times it.

  python -m experiments.peers.keras_peer SPEC.json

`protocol` describes the spec and the messages on standard input and output. The variants are

  fit                     Model.fit on arrays in memory
  fit_tf_data             Model.fit on a tf.data pipeline that gathers batches from memory and
                          prefetches them
  epoch_function          a training loop by hand, with Keras's layers, loss and optimizer: one
                          program runs over all batches of an epoch and gathers them itself
  step_function           on JAX: one program per batch, called from a Python loop

with these suffixes where they apply: `_steps`, many steps per execution of `fit`; `_jit`, compiled
with XLA (on JAX all are); `_jit_step`, each step compiled with XLA in a loop of TensorFlow. With
augmentation:

  fit_generator           Model.fit on Keras's ImageDataGenerator
  fit_tf_data             RandomRotation, RandomTranslation and RandomFlip in the pipeline
  fit_layers              the same layers at the start of the model
  epoch_function          the map of ImageDataGenerator in the program, with
                          keras.ops.image.affine_transform

The layers interpolate twice, for the rotation and for the shift; the others interpolate once.
"""

import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import protocol
from .protocol import Data, PeerError, Spec

# On TensorFlow. 1024 were no faster, with batches of a single example.
_STEPS = 64


@dataclasses.dataclass(frozen=True)
class Variant:
  """The settings of a variant.

  Attributes:
    name: name of the variant.
    mode: "fit", or a training loop by hand, whose program is an "epoch" or a "step".
    jit: what XLA compiles: "none", "all" or, in mode "epoch" on TensorFlow, "step". JAX has "all".
    steps_per_execution: argument of `Model.compile`, in mode "fit".
    pipeline: source of the data in mode "fit": "array", "tf_data", "generator" or "layers".
  """

  name: str
  mode: str = "fit"
  jit: str = "none"
  steps_per_execution: int = 1
  pipeline: str = "array"


def variants(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns the variants that fit a spec, a parsed SPEC.json; needs no Keras."""
  augmented = spec.get("augmentation") is not None
  if spec.get("backend", "tensorflow") == "jax":
    found = [
      Variant("fit" + suffix, jit="all", pipeline=pipeline)
      for suffix, pipeline in _pipelines(augmented).items()
    ]
    found += [Variant(f"{mode}_function", mode, "all") for mode in ("epoch", "step")]
  else:
    found = [
      Variant(f"fit{suffix}{many}{jit}", "fit", "all" if jit else "none", steps, pipeline)
      for suffix, pipeline in _pipelines(augmented).items()
      for many, steps in {"": 1, "_steps": _STEPS}.items()
      for jit in ("", "_jit")
      # XLA cannot compile the operations with which the layers transform images, and joining steps
      # does not make a generator faster.
      if not (jit and pipeline == "layers") and not (many and pipeline == "generator")
    ]
    suffixes = {"": "none", "_jit_step": "step"} | ({} if augmented else {"_jit": "all"})
    found += [Variant(f"epoch_function{suffix}", "epoch", jit) for suffix, jit in suffixes.items()]
  return [dataclasses.asdict(variant) for variant in found]


def create(spec: Spec, data: Data) -> "_Worker":
  """Returns the worker of a variant; see `protocol.Worker`."""
  variant = protocol.choose_variant(Variant, spec, variants(dataclasses.asdict(spec)))
  _check(variant, spec)
  if variant.mode == "fit":
    return FitWorker(spec, data, variant)
  return (JaxWorker if spec.backend == "jax" else TensorflowWorker)(spec, data, variant)


class _Worker:
  """A Keras model, its data, and its prediction; subclasses train it."""

  def __init__(self, spec: Spec, data: Data, variant: Variant):
    """Builds the model."""
    self._spec, self._data, self._variant = spec, data, variant
    self._rng = np.random.default_rng(spec.seed)
    self._keras, self._backend, self.device = _keras(spec)
    self.versions = {"keras": self._keras.__version__, spec.backend: self._backend.__version__}
    self._model = _network(self._keras, spec, variant, data.train_images.shape[1:])
    self.num_params = self._model.count_params()
    self._loss = _loss(self._keras, spec)
    self._optimizer = _optimizer(self._keras, spec)
    labels = data.train_labels
    binary = spec.loss == "binary_cross_entropy"
    self._labels = labels[:, None].astype(np.float32) if binary else labels
    self._forward = functools.cache(self._make_forward)

  def predictor(self, batch_size: int, num_images: int) -> Callable[[], np.ndarray]:
    """Predicts; see `protocol.Worker`."""
    images = self._data.test_images[:num_images]
    to_device = self._keras.ops.convert_to_tensor
    batches = [
      to_device(images[start : start + batch_size]) for start in range(0, num_images, batch_size)
    ]
    calls = [(self._forward(tuple(batch.shape)), batch) for batch in batches]

    def predict() -> np.ndarray:
      logits = [forward(batch) for forward, batch in calls]
      logits = [np.asarray(batch) for batch in logits]  # after all calls, so the device never waits
      return logits[0] if len(logits) == 1 else np.concatenate(logits)

    return predict

  def _make_forward(self, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Returns a compiled function from images of this shape to logits `[B, C]`.

    Model.predict, and even predict_on_batch, have an overhead of many times the prediction of a
    single image.
    """
    model, backend = self._model, self._backend
    if self._spec.backend == "jax":
      program = backend.jit(
        lambda trained, others, images: model.stateless_call(
          trained, others, images, training=False
        )[0]
      )
      return lambda images: program(*self._variables(), images)
    program = backend.function(
      lambda images: model(images, training=False), jit_compile=self._variant.jit != "none"
    )
    # Calling this takes half as long as a lookup by the arguments.
    return program.get_concrete_function(backend.TensorSpec(shape, backend.float32))

  def _variables(self) -> tuple[list, list]:
    """Returns the values of the trainable and of the other variables, on JAX."""
    model = self._model
    return (
      [variable.value for variable in model.trainable_variables],
      [variable.value for variable in model.non_trainable_variables],
    )


class FitWorker(_Worker):
  """Trains with `Model.fit`."""

  def __init__(self, spec: Spec, data: Data, variant: Variant):
    """Compiles the model."""
    super().__init__(spec, data, variant)
    self._model.compile(
      optimizer=self._optimizer,
      loss=self._loss,
      jit_compile=variant.jit == "all",
      steps_per_execution=variant.steps_per_execution,
    )

  def train(self, num_epochs: int, num_examples: int) -> list[float]:
    """Trains; see `protocol.Worker`."""
    feed = self._feed(num_examples)
    history = self._model.fit(**feed, epochs=num_epochs, verbose=0)
    # Waits for the last update.
    self._keras.ops.convert_to_numpy(self._model.trainable_variables[-1])
    return [float(history.history["loss"][-1])]

  def _feed(self, num_examples: int) -> dict[str, Any]:
    """Returns the arguments of `fit` that provide the data."""
    spec = self._spec
    images, labels = self._data.train_images[:num_examples], self._labels[:num_examples]
    if self._variant.pipeline == "tf_data":
      return {"x": self._pipeline(num_examples)}
    if self._variant.pipeline != "generator":
      return {"x": images, "y": labels, "batch_size": spec.batch_size, "shuffle": True}
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    augmentation = spec.augmentation
    generator = ImageDataGenerator(
      rotation_range=augmentation.rotation_range,
      # Values of 1 and above mean pixels.
      width_shift_range=augmentation.shift_range,
      height_shift_range=augmentation.shift_range,
      horizontal_flip=augmentation.horizontal_flip,
      fill_mode="nearest",
    )
    return {"x": generator.flow(images, labels, batch_size=spec.batch_size, shuffle=True)}

  def _pipeline(self, num_examples: int) -> Any:
    """Returns the batches of one epoch as a tf.data.Dataset, which reshuffles every time."""
    import tensorflow as tf

    spec = self._spec
    images, labels = self._on_device
    augment = _augmentation_layers(self._keras, spec)

    def gather(rows):
      batch = tf.gather(images, rows)
      for layer in augment:
        batch = layer(batch, training=True)
      return batch, tf.gather(labels, rows)

    # Only indices are shuffled, which is cheap and lets the buffer hold all of them.
    order = tf.data.Dataset.range(num_examples).shuffle(num_examples).batch(spec.batch_size)
    return order.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

  @functools.cached_property
  def _on_device(self) -> tuple[Any, Any]:
    """Images and labels as TensorFlow tensors."""
    import tensorflow as tf

    return tf.constant(self._data.train_images), tf.constant(self._labels)


class TensorflowWorker(_Worker):
  """Trains with a loop over all batches of an epoch in one tf.function."""

  def __init__(self, spec: Spec, data: Data, variant: Variant):
    """Puts the data on the device."""
    super().__init__(spec, data, variant)
    tf = self._backend
    self._optimizer.build(self._model.trainable_variables)
    self._images, self._targets = tf.constant(data.train_images), tf.constant(self._labels)
    self._step = tf.function(self._train_step, jit_compile=variant.jit != "none")
    self._epoch = tf.function(self._run_epoch, jit_compile=variant.jit == "all")
    self._last = tf.function(self._run_batch, jit_compile=variant.jit == "all")

  def train(self, num_epochs: int, num_examples: int) -> list[float]:
    """Trains; see `protocol.Worker`."""
    tf, size = self._backend, self._spec.batch_size
    num_steps = num_examples // size
    for _ in range(num_epochs):
      order = self._rng.permutation(num_examples).astype(np.int32)
      # Padded to the number of all examples, so that one program serves any number.
      padded = np.zeros(len(self._data.train_images), np.int32)
      padded[:num_examples] = order
      total = self._epoch(self._images, self._targets, tf.constant(padded), tf.constant(num_steps))
      rest = tf.constant(order[num_steps * size :])
      if len(rest):
        total += self._last(self._images, self._targets, rest)
    return [float(total) / num_examples]  # waits for the device

  def _run_epoch(self, images: Any, labels: Any, order: Any, num_steps: Any) -> Any:
    """Trains on the full batches and returns the sum of the losses of all examples, `[]`."""
    tf, size = self._backend, self._spec.batch_size

    def body(step, total):
      rows = tf.slice(order, [step * size], [size])
      return step + 1, total + self._run_batch(images, labels, rows)

    _, total = tf.while_loop(
      lambda step, _: step < num_steps,
      body,
      (tf.constant(0), tf.constant(0.0)),
      # Steps depend on each other; running several at once would only take more memory.
      parallel_iterations=1,
    )
    return total

  def _run_batch(self, images: Any, labels: Any, rows: Any) -> Any:
    """Trains on the examples with these indices, `[B]`, and returns the sum of their losses."""
    tf = self._backend
    batch = tf.gather(images, rows)
    if self._spec.augmentation is not None:
      size = rows.shape[0] or tf.shape(rows)[0]
      batch = _random_affine(
        self._keras.ops, batch, tf.random.uniform((4, size)), self._spec.augmentation
      )
    mean = self._step(batch, tf.gather(labels, rows))
    return mean * tf.cast(tf.shape(rows)[0], tf.float32)

  def _train_step(self, images: Any, labels: Any) -> Any:
    """Trains on one batch and returns its mean loss."""
    variables = self._model.trainable_variables
    with self._backend.GradientTape() as tape:
      loss = self._loss(labels, self._model(images, training=True))
    self._optimizer.apply(tape.gradient(loss, variables), variables)
    return loss


class JaxWorker(_Worker):
  """Trains on JAX with a loop over the batches by hand, in one program or in Python."""

  def __init__(self, spec: Spec, data: Data, variant: Variant):
    """Puts data and state on the device."""
    super().__init__(spec, data, variant)
    jax = self._backend
    self._optimizer.build(self._model.trainable_variables)
    trained, others = self._variables()
    optimizer = [variable.value for variable in self._optimizer.variables]
    self._key = jax.random.key(spec.seed)
    # Copies, because the programs donate them and Keras still refers to its own.
    self._state = jax.tree.map(lambda x: x.copy(), (trained, others, optimizer))
    self._images, self._targets = jax.device_put((data.train_images, self._labels))
    self._epoch = jax.jit(self._run_epoch, donate_argnums=0)
    self._batch = jax.jit(self._run_batch, donate_argnums=0)

  def train(self, num_epochs: int, num_examples: int) -> list[float]:
    """Trains; see `protocol.Worker`."""
    jax, size = self._backend, self._spec.batch_size
    num_steps = num_examples // size
    for _ in range(num_epochs):
      self._key, key = jax.random.split(self._key)
      order = self._rng.permutation(num_examples).astype(np.int32)
      rest = order[num_steps * size :]
      carry = self._state, np.float32(0)
      if self._variant.mode == "epoch":
        # Padded to the number of all examples, so that one program serves any number.
        padded = np.zeros(len(self._data.train_images), np.int32)
        padded[:num_examples] = order
        carry = self._epoch(carry, self._images, self._targets, key, padded, np.int32(num_steps))
      else:
        for step in range(num_steps):
          rows = order[step * size : (step + 1) * size]
          carry = self._batch(carry, self._images, self._targets, key, rows, np.int32(step))
      if len(rest):
        carry = self._batch(carry, self._images, self._targets, key, rest, np.int32(num_steps))
      self._state, total = jax.block_until_ready(carry)
    return [float(total) / num_examples]

  def _variables(self) -> tuple[list, list]:
    """Returns the current values of the variables, if training has begun."""
    return self._state[:2] if hasattr(self, "_state") else super()._variables()

  def _run_epoch(self, carry, images, labels, key, order, num_steps):
    """Trains on the full batches; the carry is (state, sum of the losses of all examples)."""
    lax, size = self._backend.lax, self._spec.batch_size

    def body(step, carry):
      rows = lax.dynamic_slice(order, (step * size,), (size,))
      return self._run_batch(carry, images, labels, key, rows, step)

    return lax.fori_loop(0, num_steps, body, carry)

  def _run_batch(self, carry, images, labels, key, rows, step):
    """Trains on the examples with these indices, `[B]`."""
    jax = self._backend
    (trained, others, optimizer), total = carry
    batch, targets = images[rows], labels[rows]
    if self._spec.augmentation is not None:
      uniform = jax.random.uniform(jax.random.fold_in(key, step), (4, len(rows)))
      batch = _random_affine(self._keras.ops, batch, uniform, self._spec.augmentation)
      # Without this, XLA may gather each pixel once for every position of a kernel.
      batch = jax.lax.optimization_barrier(batch)

    def mean_loss(trained):
      logits, after = self._model.stateless_call(trained, others, batch, training=True)
      return self._loss(targets, logits), after

    (loss, others), grads = jax.value_and_grad(mean_loss, has_aux=True)(trained)
    trained, optimizer = self._optimizer.stateless_apply(optimizer, grads, trained)
    return (trained, others, optimizer), total + loss * len(rows)


def _pipelines(augmented: bool) -> dict[str, str]:
  """Returns suffix of `fit` -> pipeline."""
  if augmented:
    return {"_generator": "generator", "_tf_data": "tf_data", "_layers": "layers"}
  return {"": "array", "_tf_data": "tf_data"}


def _check(variant: Variant, spec: Spec):
  """Raises PeerError for settings that do not fit each other or the spec."""
  if spec.num_members > 1:
    raise PeerError(f"Keras trains one member at a time, not {spec.num_members}")
  jax = spec.backend == "jax"
  protocol.check_choice("mode", variant.mode, ("fit", "epoch", *(["step"] if jax else [])))
  protocol.check_integer("steps_per_execution", variant.steps_per_execution, 1)
  stages = ("all",) if jax else ("none", "all", *(["step"] if variant.mode == "epoch" else []))
  protocol.check_choice("jit", variant.jit, stages)
  augmented = spec.augmentation is not None
  if variant.mode == "fit":
    protocol.check_choice("pipeline", variant.pipeline, tuple(_pipelines(augmented).values()))
  if augmented and not jax and variant.jit == "all" and variant.mode == "epoch":
    raise PeerError("XLA has no image transformation on TensorFlow: jit must be none or step")


def _keras(spec: Spec) -> tuple[Any, Any, str]:
  """Imports Keras on its backend and sets both up; returns (keras, backend, device)."""
  protocol.limit_threads(spec.threads)
  os.environ["KERAS_BACKEND"] = spec.backend
  gpu = spec.device == "gpu"
  try:
    if spec.backend == "jax":
      if not gpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
      import jax as backend

      device = backend.default_backend()
    else:
      import tensorflow as backend

      backend.config.threading.set_intra_op_parallelism_threads(spec.threads)
      backend.config.threading.set_inter_op_parallelism_threads(spec.threads)
      if not gpu:
        backend.config.set_visible_devices([], "GPU")
      device = "gpu" if backend.config.get_visible_devices("GPU") else "cpu"
    import keras
  except ImportError as error:
    raise PeerError(f"Keras on {spec.backend} cannot be imported: {error}") from error
  if gpu and device == "cpu":
    raise PeerError(f"device is gpu, and {spec.backend} finds none")
  keras.utils.set_random_seed(spec.seed)
  return keras, backend, device


def _network(keras: Any, spec: Spec, variant: Variant, image_shape: tuple[int, ...]) -> Any:
  """Returns a new network: images `[B, H, W, D]` -> logits `[B, C]`."""
  activations = {
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "leaky_relu": lambda x: keras.activations.leaky_relu(x, protocol.LEAKY_SLOPE),
  }
  layers = [keras.Input(image_shape)]
  if variant.pipeline == "layers":
    layers += _augmentation_layers(keras, spec)
  for layer in spec.layers:
    activation = activations.get(layer.activation, layer.activation)
    if layer.kind == "conv":
      layers.append(keras.layers.Conv2D(layer.features, layer.size, activation=activation))
    elif layer.kind == "dense":
      layers.append(keras.layers.Dense(layer.features, activation=activation))
    elif layer.kind == "flatten":
      layers.append(keras.layers.Flatten())
    elif layer.rate:
      layers.append(keras.layers.Dropout(layer.rate))
    if layer.pool:
      layers.append(keras.layers.MaxPooling2D())
  return keras.Sequential(layers)


def _loss(keras: Any, spec: Spec) -> Any:
  """Returns the mean loss of labels and logits."""
  if spec.loss == "binary_cross_entropy":
    return keras.losses.BinaryCrossentropy(from_logits=True)
  return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _optimizer(keras: Any, spec: Spec) -> Any:
  if spec.optimizer == "adam":
    return keras.optimizers.Adam(
      spec.learning_rate, protocol.BETA_1, protocol.BETA_2, protocol.EPSILON
    )
  momentum = protocol.MOMENTUM if spec.optimizer == "momentum" else 0.0
  return keras.optimizers.SGD(spec.learning_rate, momentum=momentum)


def _augmentation_layers(keras: Any, spec: Spec) -> list:
  """Returns Keras's layers for the augmentation of the spec; empty without augmentation."""
  augmentation = spec.augmentation
  if augmentation is None:
    return []
  share, layers = augmentation.shift_range, keras.layers
  return [
    layers.RandomRotation(augmentation.rotation_range / 360, fill_mode="nearest"),
    layers.RandomTranslation(share, share, fill_mode="nearest"),
    *([layers.RandomFlip("horizontal")] if augmentation.horizontal_flip else []),
  ]


def _random_affine(ops: Any, images: Any, uniform: Any, augmentation: protocol.Augmentation) -> Any:
  """Rotates and shifts each image and mirrors half of them, all in one map.

  In coordinates from the centre, the pixel (row, col) of the result comes from the position
  R (row + shift_rows, col + shift_cols) in the image, with R = [[cos, -sin], [sin, cos]].

  Args:
    ops: the module keras.ops.
    images: `[B, H, W, D]` floats.
    uniform: random numbers `[4, B]` in [0, 1).
    augmentation: the ranges.
  """
  height, width = images.shape[1:3]
  either_way = 2 * uniform[:3] - 1
  angle = math.radians(augmentation.rotation_range) * either_way[0]
  shift_rows = augmentation.shift_range * height * either_way[1]
  shift_cols = augmentation.shift_range * width * either_way[2]
  flip = ops.cast(uniform[3] < (0.5 if augmentation.horizontal_flip else 0), "float32")
  sign = 1 - 2 * flip
  cos, sin = ops.cos(angle), ops.sin(angle)
  middle_row, middle_col = (height - 1) / 2, (width - 1) / 2
  down, along = shift_rows - middle_row, shift_cols - sign * middle_col
  zero = ops.zeros_like(angle)
  # The pixel at (x, y) comes from (a0 x + a1 y + a2, b0 x + b1 y + b2).
  x = [cos * sign, sin, middle_col + sin * down + cos * along]
  y = [-sin * sign, cos, middle_row + cos * down - sin * along]
  transform = ops.stack([*x, *y, zero, zero], axis=1)  # [B, 8]
  return ops.image.affine_transform(
    images, transform, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
  )


if __name__ == "__main__":
  sys.exit(protocol.main(sys.argv, create))
