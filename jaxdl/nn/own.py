"""Models of the user's own: any flax module, or a pair of functions, and how they are called.

A module's collections besides `params`, such as the running averages of batch normalisation, are
its state: training changes it beside the parameters.

A module of flax NNX takes an adapter, which is a linen module:

  class Adapted(linen.Module):
    num_outputs: int = 10

    @linen.compact
    def __call__(self, x, train):
      def call(net, x):
        net.set_attributes(deterministic=not train, use_running_average=not train)
        return net(x)

      arguments = (x[0].size, self.num_outputs)  # of Net, besides rngs
      return nnx.bridge.ToLinen(Net, arguments)(x, nnx_method=call)

Its `nnx.Param` are the parameters, its other variables the state. Its convolutions are XLA's, which
are slow in training on CPU (see `layers.py`).
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxdl import calls
from jaxdl.calls import Call
from jaxdl.errors import InputError
from jaxdl.nn import layers


def canonical(model: Any) -> Any:
  """Returns a model as text if it has one, else as a call; a pair of functions becomes a module."""
  if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
    model = Functions(*model)
  is_functions = isinstance(model, Functions)
  return calls.canonical(Call.of(model) if is_functions else model)


def create(call: Call, settings: Mapping[str, Any]) -> Any:
  """Returns the model that a call builds, with those settings that it takes and does not give.

  Where a setting is None, the model uses its own default.

  Raises:
    InputError: it cannot be built, or is no model.
  """
  takes, given = call.parameters(), call.given()
  more = {
    name: value
    for name, value in settings.items()
    if value is not None and name in takes and name not in given
  }
  model = call.build(**more)
  if not (hasattr(model, "init") and hasattr(model, "apply")):
    raise InputError(f"model {call} is not a flax module: it has no init and apply")
  return model


@dataclasses.dataclass(frozen=True)
class Functions:
  """A model from two functions.

  Attributes:
    init_function: `(key, inputs [B, ...]) -> params`.
    apply_function: `(params, inputs [B, ...]) -> outputs [B, ...]`. It may take `train` or
      `deterministic`, and `rngs`, as flax modules do.
  """

  init_function: Callable
  apply_function: Callable

  def init(self, rngs: Mapping[str, jax.Array], inputs: jax.Array, **_: bool) -> dict[str, Any]:
    """Returns the variables, as a flax module does; the mode of `apply` plays no part."""
    return {"params": self.init_function(rngs["params"], inputs)}

  def apply(self, variables: Mapping[str, Any], inputs: jax.Array, **keywords: Any) -> Any:
    """Returns outputs, or the pair `(outputs, {})` with `mutable`, as a flax module does."""
    takes = inspect.signature(self.apply_function).parameters
    mutable = "mutable" in keywords
    passed = {name: value for name, value in keywords.items() if name in takes}
    outputs = self.apply_function(variables["params"], inputs, **passed)
    return (outputs, {}) if mutable else outputs


# What an arm sets, and the argument of a module that gets it.
SETTINGS = {
  "kernel_initializer": "kernel_init",
  "bias_initializer": "bias_init",
  "dropout_rate": "dropout_rate",
  "activation": "activation",
}


def check_settings(call: Call, changed: Mapping[str, Any]):
  """Checks that a model takes what an arm sets.

  Args:
    call: the model.
    changed: those of the settings in `SETTINGS` that do not have their defaults.

  Raises:
    InputError: the model does not take one, or the call gives it as well.
  """
  for setting, argument in SETTINGS.items():
    is_nothing = setting == "dropout_rate" and changed.get(setting) == 0
    if setting in changed and not is_nothing and argument not in call.parameters():
      raise InputError(
        f"model {call} takes no {argument}, so the arm cannot set {setting}={changed[setting]!r}"
      )
    if setting in changed and argument in call.given():
      raise InputError(
        f"model {call} gives {argument} itself, so the arm cannot set "
        f"{setting}={changed[setting]!r}"
      )


def init(model: Any, key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
  """Returns the initial variables of a model of the user's own, by collection."""
  keywords = _mode(model, is_training=False)
  rngs = {"params": key, "dropout": jax.random.fold_in(key, 1)}
  return dict(model.init(rngs, inputs, **keywords))


def apply(
  model: Any,
  variables: Mapping[str, Any],
  inputs: jax.Array,
  dropout_key: jax.Array | None = None,
  native: bool = False,
) -> tuple[jax.Array, dict[str, Any]]:
  """Applies a model of the user's own, in training or in evaluation.

  A keyword `train` or `deterministic` is passed if the module takes one. Convolutions are computed
  as in `jaxdl.nn.layers`, because XLA's are slow inside a loop and under `vmap`.

  Args:
    model: a flax module, or `Functions`.
    variables: its variables, by collection.
    inputs: `[B, ...]`.
    dropout_key: `[]`, in training; None in evaluation.
    native: use XLA's own convolutions, which are faster without a gradient and without `vmap`.

  Returns:
    Outputs, and the collections besides `params` after the call: as they were, in evaluation.
  """
  state = {name: of for name, of in variables.items() if name != "params"}
  with contextlib.nullcontext() if native else layers.convolving_as_products():
    if dropout_key is None:
      return model.apply(variables, inputs, **_mode(model, is_training=False)), state
    outputs, changed = model.apply(
      variables,
      inputs,
      rngs={"dropout": dropout_key},
      mutable=[*state],
      **_mode(model, is_training=True),
    )
  return outputs, {**state, **changed}


def _mode(model: Any, is_training: bool) -> dict[str, bool]:
  function = model.apply_function if isinstance(model, Functions) else type(model).__call__
  takes = inspect.signature(function).parameters
  modes = {"train": is_training, "deterministic": not is_training}
  return {name: value for name, value in modes.items() if name in takes}
