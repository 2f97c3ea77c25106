"""Models: name -> linen module that maps images `[B, H, W, D]` in [0, 1] to logits `[B, C]`.

A model of the user's own, see `own.py`, is any linen module, or a pair of functions. The networks
of `networks/` have names, and are called like those of the user's own.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jaxdl import calls
from jaxdl.calls import Call
from jaxdl.errors import InputError, show, unknown_name
from jaxdl.nn import own
from jaxdl.nn.layers import Conv, Dropout, dot_general, max_pool_2x2

# As Keras defines them: leaky ReLU with slope 0.2, and GELU with the exact error function.
_ACTIVATIONS = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.2),
  "relu": nn.relu,
  "sigmoid": nn.sigmoid,
  "tanh": nn.tanh,
}
ACTIVATIONS = tuple(_ACTIVATIONS)
# Activations that never decrease commute with a maximum. So a CNN can pool first and apply the
# activation to a quarter of the values.
MONOTONE = ("leaky_relu", "relu", "sigmoid", "tanh")

# Of the networks of the coursework.
DEFAULT_DROPOUT_RATE = 0.5

# The name under which `MLP` sows the inputs of the hidden layers' activations.
PREACTIVATIONS = "preactivations"


class CNN(nn.Module):
  """Blocks of 3 x 3 convolution, 2 x 2 max pooling and activation, then dense layers.

  `cnn_binary` has features (32, 64) and pools in both blocks; for 28 x 28 x 1 images and one output
  it has 320 + 18,496 + 1,601 = 20,417 parameters. `cnn_mnist` does not pool in the second block and
  has a hidden layer of 64 units; with ten outputs it has 320 + 18,496 + 495,680 + 650 = 515,146.
  """

  num_outputs: int
  kernel_init: Callable
  bias_init: Callable
  dropout_rate: float
  features: tuple[int, ...] = (32, 64)
  num_pooled: int = 2  # number of blocks that pool, from the first
  hidden: tuple[int, ...] = ()
  activation: str = "relu"
  native_conv: bool = False  # use XLA's own convolution; fastest without a gradient

  @nn.compact
  def __call__(self, images: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
    """Returns logits `[B, num_outputs]`; `dropout_keys` is `[B]`, or None when evaluating."""
    init = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
    dense = functools.partial(nn.Dense, dot_general=dot_general, **init)
    activate = get_activation(self.activation)
    x = images
    conv = functools.partial(Conv, native=self.native_conv, **init)
    for block, features in enumerate(self.features):
      pool, first = block < self.num_pooled, self.activation in MONOTONE
      x = activate(conv(features, pool=pool and first)(x))
      x = max_pool_2x2(x, self.native_conv) if pool and not first else x
    x = x.reshape(x.shape[0], -1)  # [B, D]
    for features in self.hidden:
      x = activate(dense(features)(x))
    x = Dropout(self.dropout_rate)(x, dropout_keys)
    return dense(self.num_outputs)(x)


class MLP(nn.Module):
  """Dense layers with activations on a flattened image, then dropout and a dense output layer.

  `mlp` has hidden layers (128, 64); for 28 x 28 x 1 images and ten outputs it has 109,386
  parameters. `cifar_mlp` has hidden layers (512, 256) with tanh after the second; for 32 x 32 x 3
  images and ten outputs it has 1,707,274.
  """

  num_outputs: int
  kernel_init: Callable
  bias_init: Callable
  dropout_rate: float
  hidden: tuple[int, ...] = (128, 64)
  activation: str = "relu"
  last_activation: str | None = None  # of the last hidden layer; None: `activation`

  @nn.compact
  def __call__(self, images: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
    """Returns logits `[B, num_outputs]`; `dropout_keys` is `[B]`, or None when evaluating."""
    dense = functools.partial(
      nn.Dense,
      kernel_init=self.kernel_init,
      bias_init=self.bias_init,
      dot_general=dot_general,
    )
    names = [self.activation] * len(self.hidden)
    names[-1] = self.last_activation or self.activation
    x = images.reshape(images.shape[0], -1)  # [B, D]
    for features, name in zip(self.hidden, names, strict=True):
      x = dense(features)(x)
      self.sow("intermediates", PREACTIVATIONS, x)
      x = get_activation(name)(x)
    x = Dropout(self.dropout_rate)(x, dropout_keys)
    return dense(self.num_outputs)(x)


_MODELS: dict[str, Callable[..., nn.Module]] = {
  "cifar_mlp": functools.partial(MLP, hidden=(512, 256), last_activation="tanh"),
  "cnn_binary": CNN,
  "cnn_mnist": functools.partial(CNN, num_pooled=1, hidden=(64,)),
  "mlp": MLP,
}
NAMES = tuple(_MODELS)
# Name -> what is called.
NETWORKS = {
  "lenet5": "LeNet5",
  "resnet": "ResNet",
  "transformer": "Transformer",
  "vit": "VisionTransformer",
}
MAX_LAYERS, _MAX_UNITS = 200, 2**16
# Maximum number of weights between hidden layers, a gigabyte. More is probably a typing error, and
# is reported before the memory is allocated.
_MAX_WEIGHTS = 2**28


def check(spec: Any):
  """Raises InputError unless it is a model, as `canonical` returns one; nothing is imported."""
  _ = Call.of(spec) if calls.is_importable(spec) else parse(spec)


def canonical(model: Any) -> Any:
  """Returns a model as text if it has one, else as a call; a network that is there by name as text.

  Args:
    model: one of `NAMES`, as `parse` reads it; one of `NETWORKS`, whose arguments are the fields of
      the module in `jaxdl.nn.networks`, such as `resnet(20, norm=group)`; `mlp` with a norm, such
      as `mlp(64, 64, norm=batch)`; or a model of the user's own.

  Returns:
    For a network, the text of a call: `jaxdl.nn.networks:ResNet(norm='group')`. Else as
    `own.canonical` does.

  Raises:
    InputError: a network does not take the arguments, or the model has no text and is no call.
  """
  if not isinstance(model, str) or calls.is_importable(model):
    return own.canonical(model)
  name, _, inside = model.partition("(")
  name = name.strip()
  has_norm = re.search(r"\bnorm\s*=", inside) is not None
  if name not in NETWORKS and not (name == "mlp" and has_norm):
    if name not in NAMES:
      raise unknown_name("model", name, [*NAMES, *NETWORKS])
    return model
  # Words need no quotes: norm=batch.
  inside = re.sub(r"(?<==)\s*([A-Za-z]\w*)\s*(?=[,)])", _quoted, inside)
  target = f"jaxdl.nn.networks:{NETWORKS.get(name, 'MLP')}"
  try:
    call = Call.read(f"{target}({inside}" if inside else f"{target}()")
  except InputError:
    call = None
  # Numbers and words only: text may come from a file of results, which must not import anything.
  if call is None or ":" in inside:
    raise InputError(f"model {show(model)} is not of the form {name}(argument=1)")
  if name == "mlp":  # its arguments are sizes
    named = {"hidden": call.args, **dict(call.kwargs)}
    call = Call(target, (), tuple(sorted(named.items())), True)
  built = Call.of(call.build())  # equal for equal networks
  return str(built if built.is_text else call)


def _quoted(match: re.Match) -> str:
  word = match[1]
  return word if word in ("True", "False", "None") else repr(word)


def parse(spec: str) -> tuple[str, tuple[int, ...] | None]:
  """Reads a model that is known here from a setting.

  Args:
    spec: one of `NAMES`. `mlp` may have the sizes of its hidden layers in brackets, e.g.
      `"mlp(64, 64, 64)"`.

  Returns:
    The name and the sizes of the hidden layers. If `spec` has no sizes, they are None, and the
    model uses its default sizes.

  Raises:
    InputError: the name is unknown, or the sizes are invalid.
  """
  name, texts = calls.split("model", spec, list(_MODELS))
  if texts is None:
    return name, None
  if name != "mlp":
    raise InputError(f"model {name!r} takes no layer sizes, but {show(spec)} gives some")
  # Not `int` of whatever there is: of thousands of digits it raises, and so it does of "1 2".
  sizes = [int(text) if re.fullmatch(r"\d{1,9}", text) else 0 for text in texts]
  if not 0 < len(sizes) <= MAX_LAYERS or not all(0 < size <= _MAX_UNITS for size in sizes):
    raise InputError(
      f"model {show(spec)} needs 1 to {MAX_LAYERS} sizes of hidden layers, each 1 to {_MAX_UNITS:,}"
    )
  if sum(map(math.prod, itertools.pairwise(sizes))) > _MAX_WEIGHTS:
    raise InputError(
      f"model {show(spec)} has more than {_MAX_WEIGHTS:,} weights between its hidden layers"
    )
  return name, tuple(sizes)


def create(
  spec: str | Call, activation: str = "relu", native_conv: bool = False, **settings: Any
) -> Any:
  """Returns the model that a setting describes.

  Args:
    spec: the setting, e.g. `"mlp(64, 64)"`, see `canonical`. A module of the user's own, or one of
      `NETWORKS`, gets those of the settings that it takes and that the call does not give.
    activation: one of `ACTIVATIONS`, for the hidden layers (only the first one of `cifar_mlp`). A
      module of the user's own gets the function.
    native_conv: use XLA's own convolution; for CNNs only.
    **settings: the other fields of `CNN` and `MLP`: `num_outputs`, `kernel_init`, `bias_init` and
      `dropout_rate`.

  Raises:
    InputError: the model or the activation is unknown, or cannot be built.
  """
  function, spec = get_activation(activation), canonical(spec)
  if calls.is_importable(spec):
    return own.create(Call.of(spec), {**settings, "activation": function})
  name, hidden = parse(str(spec))
  if hidden is not None:
    settings["hidden"] = hidden
  if native_conv:
    settings["native_conv"] = True
  return _MODELS[name](activation=activation, **settings)


def get_activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """Returns the activation with this name. Raises InputError if there is none."""
  if name not in _ACTIVATIONS:
    raise unknown_name("activation", name, _ACTIVATIONS)
  return _ACTIVATIONS[name]


def hidden_activations(spec: str, activation: str) -> tuple[str, ...]:
  """Returns the name of the activation of each hidden dense layer, starting at the input."""
  model = create(
    spec, activation, num_outputs=1, kernel_init=None, bias_init=None, dropout_rate=0.0
  )
  names = [activation] * len(model.hidden)
  if names and getattr(model, "last_activation", None):
    names[-1] = model.last_activation
  return tuple(names)


def is_convolutional(spec: str | Call) -> bool:
  """Whether a model may have convolutions, whose patches need more memory than dense layers do."""
  spec = canonical(spec)
  return calls.is_importable(spec) or parse(str(spec))[0].startswith("cnn")
