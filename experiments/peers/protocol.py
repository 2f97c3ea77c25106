"""What the workers of the benchmark share: spec, data, and messages to and from the caller.

A peer is another framework. Its worker runs in a separate environment without jaxdl, so this module
needs only the standard library and NumPy. A worker is started from the repository root as

  python -m experiments.peers.PEER_peer SPEC.json

It prints `{"ready": true, "versions": {...}, "num_params": n, "device": "..."}`, and then answers
each line on standard input with one line on standard output:

  {"command": "train", "num_epochs": k, "num_examples": null}
    -> {"seconds": s, "train_loss": [of each member, in the last epoch], "peak_memory_mb": m}
  {"command": "predict", "batch_size": b, "num_images": n, "repeats": r}
    -> {"seconds": [s, ...], "peak_memory_mb": m}
  {"command": "exit"}

Training continues where the last command left it. `num_examples`, a multiple of the batch size,
restricts an epoch to the first examples. Programs are compiled when they are first needed, and that
time counts: the first `train` compiles, and so does the first one whose last batch is smaller.
Prediction is warmed up by one pass that is not timed.

Any error is reported as one line, `{"error": "..."}`, with exit status 1.
"""

import dataclasses
import json
import os
import pathlib
import platform
import resource
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO

import numpy as np

ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "leaky_relu")
LOSSES = ("binary_cross_entropy", "categorical_cross_entropy")
OPTIMIZERS = ("adam", "sgd", "momentum")
LEAKY_SLOPE = 0.2
MOMENTUM = 0.9
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # of Adam, Keras's defaults


class PeerError(ValueError):
  """Bad input, or something that this machine does not have. The message is one line."""


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer of a network that is applied from first to last.

  Attributes:
    kind: "conv" (no padding, stride 1, with bias), "flatten", "dense" (with bias) or "dropout".
    features: number of features of a conv or dense layer.
    size: side of the kernel of a conv layer.
    pool: whether 2 x 2 max pooling follows the activation of a conv layer.
    activation: activation of a conv or dense layer, one of ACTIVATIONS, or None.
    rate: share of values that a dropout layer drops.
  """

  kind: str
  features: int = 0
  size: int = 0
  pool: bool = False
  activation: str | None = None
  rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Random changes of training images, with the semantics of Keras's ImageDataGenerator.

  Attributes:
    rotation_range: largest rotation in either direction, in degrees.
    shift_range: largest shift in either direction, as a share of the height and of the width.
    horizontal_flip: whether an image is mirrored left to right with probability 1/2.
  """

  rotation_range: float = 0.0
  shift_range: float = 0.0
  horizontal_flip: bool = False


@dataclasses.dataclass(frozen=True)
class Spec:
  """What to train and how; the content of SPEC.json.

  Attributes:
    data: path of the npz file that `load_data` reads.
    layers: the layers of the network; the last one gives the logits.
    loss: one of LOSSES.
    optimizer: one of OPTIMIZERS.
    learning_rate: the learning rate, which is constant.
    batch_size: B, examples per step.
    augmentation: the augmentation of training images; None: no augmentation.
    seed: seed of the weights and of all randomness in training.
    threads: number of CPU threads to use.
    num_members: M, number of networks that train at once.
    backend: backend of Keras, "tensorflow" or "jax".
    device: "cpu" or "gpu".
    variant: the peer's own settings; None takes the first of its `variants`.
  """

  data: str
  layers: tuple[Layer, ...]
  loss: str
  optimizer: str
  learning_rate: float
  batch_size: int
  augmentation: Augmentation | None = None
  seed: int = 0
  threads: int = 1
  num_members: int = 1
  backend: str = "tensorflow"
  device: str = "cpu"
  variant: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Data:
  """Images float32 `[N, H, W, D]` in [0, 1], and labels int32 `[N]`."""

  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray


class Worker(Protocol):
  """A worker of the benchmark: networks in training.

  Attributes:
    versions: package -> version.
    num_params: number of parameters of one network.
    device: name of the device that it runs on.
  """

  versions: Mapping[str, str]
  num_params: int
  device: str

  def train(self, num_epochs: int, num_examples: int) -> list[float]:
    """Trains on the first examples and returns the mean loss of the last epoch, `[M]`.

    It must wait until the device has finished.
    """
    ...

  def predictor(self, batch_size: int, num_images: int) -> Callable[[], np.ndarray]:
    """Returns a function that computes the logits of the first test images, `[.., n, C]`."""
    ...


def main(argv: Sequence[str], create: Callable[[Spec, Data], Worker]) -> int:
  """Runs a worker from its command line and returns the exit status.

  Args:
    argv: the command line, starting with the program.
    create: creates the worker.
  """
  channel = _take_stdout()
  try:
    if len(argv) != 2:
      raise PeerError(f"usage: python -m experiments.peers.PEER_peer SPEC.json, not {argv[1:]}")
    spec = read_spec(argv[1])
    data = load_data(spec)
    worker = create(spec, data)
    ready = {"ready": True, "versions": {**_versions(), **worker.versions}}
    _send(channel, ready | {"num_params": worker.num_params, "device": worker.device})
    for command in _commands(sys.stdin):
      _send(channel, _answer(worker, command, spec, data))
  except Exception as error:
    if not isinstance(error, PeerError):
      traceback.print_exc()
    line = " ".join(str(error).split()) or "no message"
    kind = "" if isinstance(error, PeerError) else f"{type(error).__name__}: "
    _send(channel, {"error": f"{kind}{line[:500]}"})
    return 1
  return 0


def read_spec(path: str) -> Spec:
  """Reads and checks SPEC.json. Raises PeerError."""
  try:
    fields = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise PeerError(f"spec {path}: {error}") from error
  return parse_spec(fields)


def parse_spec(fields: Mapping[str, Any]) -> Spec:
  """Checks the content of SPEC.json. Raises PeerError."""
  spec = build(Spec, fields, "spec")
  if not isinstance(spec.layers, list) or not spec.layers:
    raise PeerError(f"layers must be a list of layers, not {spec.layers!r}")
  layers = tuple(build(Layer, layer, "layer") for layer in spec.layers)
  augmentation = spec.augmentation
  if augmentation is not None:
    augmentation = build(Augmentation, augmentation, "augmentation")
    _check_number("rotation_range", augmentation.rotation_range, 0, 180)
    _check_number("shift_range", augmentation.shift_range, 0, 1)
    _check_type("horizontal_flip", augmentation.horizontal_flip, bool)
  spec = dataclasses.replace(spec, layers=layers, augmentation=augmentation)
  _check_type("data", spec.data, str)
  for name, known in {
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "backend": ("tensorflow", "jax"),
    "device": ("cpu", "gpu"),
  }.items():
    check_choice(name, getattr(spec, name), known)
  _check_number("learning_rate", spec.learning_rate, 0)
  for name, least in {"batch_size": 1, "threads": 1, "num_members": 1, "seed": 0}.items():
    check_integer(name, getattr(spec, name), least)
  for layer in layers:
    _check_layer(layer)
  last = layers[-1]
  if last.kind != "dense" or last.activation is not None:
    raise PeerError("the last layer must be dense without an activation: it gives the logits")
  if (spec.loss == "binary_cross_entropy") != (last.features == 1):
    raise PeerError(f"{spec.loss} does not fit {last.features} logits")
  return spec


def load_data(spec: Spec) -> Data:
  """Reads the npz file of the spec and scales its images to [0, 1]. Raises PeerError."""
  try:
    with np.load(spec.data, allow_pickle=False) as file:
      arrays = {field.name: file[field.name] for field in dataclasses.fields(Data)}
  except (OSError, KeyError) as error:
    raise PeerError(f"data {spec.data}: {error}") from error
  # NumPy reports unknown content as a pickle, and an .npy file is not a context manager.
  except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
    raise PeerError(f"data {spec.data}: not an npz file of plain arrays") from error
  num_classes = max(2, spec.layers[-1].features)
  for split in ("train", "test"):
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
      raise PeerError(f"{split}_images must be uint8 [N, H, W, D], not {_describe(images)}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
      raise PeerError(f"{split}_labels must be integers [{len(images)}], not {_describe(labels)}")
    if labels.min() < 0 or labels.max() >= num_classes:
      raise PeerError(f"{split}_labels must be 0 to {num_classes - 1}, not up to {labels.max()}")
    arrays[f"{split}_images"] = images.astype(np.float32) / 255
    arrays[f"{split}_labels"] = labels.astype(np.int32)
  data = Data(**arrays)
  input_shapes(spec.layers, data.train_images.shape[1:])  # raises PeerError if a layer does not fit
  if data.test_images.shape[1:] != data.train_images.shape[1:]:
    raise PeerError("train_images and test_images differ in shape")
  return data


def input_shapes(
  layers: Sequence[Layer], image_shape: tuple[int, ...]
) -> Iterator[tuple[Layer, tuple[int, ...]]]:
  """Returns each layer with the shape of its input for one example: `(H, W, D)` or `(F,)`.

  Raises PeerError if a layer does not fit its input.
  """
  pairs, shape = [], tuple(image_shape)
  for layer in layers:
    pairs.append((layer, shape))
    if layer.kind in ("conv", "dense") and len(shape) != (3 if layer.kind == "conv" else 1):
      raise PeerError(f"a {layer.kind} layer does not fit an input of shape {list(shape)}")
    if layer.kind == "conv":
      halve = 2 if layer.pool else 1
      height, width = ((side - layer.size + 1) // halve for side in shape[:2])
      shape = height, width, layer.features
      if min(shape) < 1:
        raise PeerError(f"nothing is left of an image of shape {list(pairs[-1][1])} after {layer}")
    elif layer.kind == "dense":
      shape = (layer.features,)
    elif layer.kind == "flatten":
      shape = (int(np.prod(shape)),)
  return iter(pairs)


def build(cls: type, fields: Any, what: str) -> Any:
  """Builds a dataclass from its fields. Raises PeerError for unknown or missing fields."""
  if not isinstance(fields, Mapping):
    raise PeerError(f"{what} must be an object, not {fields!r}")
  known = {field.name: field for field in dataclasses.fields(cls)}
  for name in fields:
    if name not in known:
      raise PeerError(f"unknown {what} field {name!r}; known: {', '.join(known)}")
  for name, field in known.items():
    if field.default is dataclasses.MISSING and name not in fields:
      raise PeerError(f"{what} lacks {name!r}")
  return cls(**fields)


def choose_variant(cls: type, spec: Spec, known: Sequence[Mapping[str, Any]]) -> Any:
  """Returns the variant of the spec, by default the first known one, as a dataclass."""
  return build(cls, known[0] if spec.variant is None else spec.variant, "variant")


def check_choice(name: str, value: Any, known: Sequence[Any]):
  """Raises PeerError unless the value is one of the known ones."""
  if value not in known:
    raise PeerError(f"{name} must be one of {', '.join(map(str, known))}, not {value!r}")


def check_integer(name: str, value: Any, least: int, most: int = 2**31 - 1):
  """Raises PeerError unless the value is an integer from `least` to `most`."""
  if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
    raise PeerError(f"{name} must be an integer from {least} to {most}, not {value!r}")


def limit_threads(threads: int):
  """Limits the threads of the libraries below a framework; call it before importing that."""
  os.environ["OMP_NUM_THREADS"] = str(threads)
  os.environ["NPROC"] = str(threads)  # XLA's name for it


def peak_memory_mb() -> float:
  """Returns the peak resident memory of this process, in MB (10^6 bytes)."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _answer(worker: Worker, command: Mapping[str, Any], spec: Spec, data: Data) -> dict[str, Any]:
  """Executes one command and returns the answer."""
  fields = {name: value for name, value in command.items() if name != "command"}
  if command["command"] == "train":
    train = build(_Train, fields, "train")
    size = len(data.train_images)
    num_examples = size if train.num_examples is None else train.num_examples
    check_integer("num_epochs", train.num_epochs, 1)
    check_integer("num_examples", num_examples, 1, size)
    if num_examples != size and num_examples % spec.batch_size:
      raise PeerError(f"num_examples must be a multiple of {spec.batch_size}, not {num_examples}")
    start = time.perf_counter()
    losses = worker.train(train.num_epochs, num_examples)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "train_loss": losses, "peak_memory_mb": peak_memory_mb()}
  predict = build(_Predict, fields, "predict")
  check_integer("num_images", predict.num_images, 1, len(data.test_images))
  check_integer("batch_size", predict.batch_size, 1)
  check_integer("repeats", predict.repeats, 1)
  compute = worker.predictor(min(predict.batch_size, predict.num_images), predict.num_images)
  expected = (predict.num_images, spec.layers[-1].features)
  logits = compute()  # compiles
  if logits.shape[-2:] != expected:
    raise RuntimeError(f"logits of shape {logits.shape}, not {expected}")
  seconds = []
  for _ in range(predict.repeats):
    start = time.perf_counter()
    compute()
    seconds.append(time.perf_counter() - start)
  return {"seconds": seconds, "peak_memory_mb": peak_memory_mb()}


@dataclasses.dataclass(frozen=True)
class _Train:
  """The fields of the command `train`."""

  num_epochs: int
  num_examples: int | None = None


@dataclasses.dataclass(frozen=True)
class _Predict:
  """The fields of the command `predict`."""

  batch_size: int
  num_images: int
  repeats: int = 1


def _commands(lines: TextIO) -> Iterator[Mapping[str, Any]]:
  """Yields the commands until `exit` or the end of the input. Raises PeerError."""
  for line in lines:
    if not line.strip():
      continue
    try:
      command = json.loads(line)
    except ValueError as error:
      raise PeerError(f"a command must be a line of JSON, not {line.strip()[:80]!r}") from error
    name = command.get("command") if isinstance(command, Mapping) else command
    check_choice("command", name, ("train", "predict", "exit"))
    if name == "exit":
      return
    yield command


def _take_stdout() -> TextIO:
  """Returns the real standard output, and sends everything else that is printed to standard error.

  That includes what C++ code writes to file descriptor 1, which would be mistaken for an answer.
  """
  channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
  sys.stdout.flush()
  os.dup2(2, 1)
  return channel


def _send(channel: TextIO, message: Mapping[str, Any]):
  print(json.dumps(message), file=channel, flush=True)


def _versions() -> dict[str, str]:
  return {"python": platform.python_version(), "numpy": np.__version__}


def _describe(array: np.ndarray) -> str:
  return f"{array.dtype} {list(array.shape)}"


def _check_layer(layer: Layer):
  """Raises PeerError for a layer that cannot be built on any input."""
  check_choice("kind of layer", layer.kind, ("conv", "flatten", "dense", "dropout"))
  if layer.kind in ("conv", "dense"):
    check_integer("features", layer.features, 1)
    check_choice("activation", layer.activation, (*ACTIVATIONS, None))
  if layer.kind == "conv":
    check_integer("size", layer.size, 1)
    _check_type("pool", layer.pool, bool)
  if layer.kind == "dropout":
    _check_number("rate", layer.rate, 0, 0.999)


def _check_type(name: str, value: Any, cls: type):
  if not isinstance(value, cls):
    raise PeerError(f"{name} must be a {cls.__name__}, not {value!r}")


def _check_number(name: str, value: Any, least: float, most: float = float("inf")):
  if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
    raise PeerError(f"{name} must be a number from {least} to {most}, not {value!r}")
