"""The rules of optimizers as formulas.

A rule is a formula for a value after the step. In it, w and v_w are values before the step, v_w'
is a value after it, and t is the number of the step, from 1.

Sources: momentum and Nesterov as in Sutskever, Martens, Dahl and Hinton (2013), with the learning
rate outside the velocity, as PyTorch and optax have them; RMSprop as in Tieleman and Hinton (2012);
Adagrad as in Duchi, Hazan and Singer (2011); Adam as in Kingma and Ba (2015), algorithm 1; AdamW as
in Loshchilov and Hutter (2019).
"""

from collections.abc import Mapping
from typing import NamedTuple

EPS = "eps"  # keeps a divisor from being 0; so small that a calculation by hand leaves it out


class Optimizer(NamedTuple):
  """An optimizer.

  Attributes:
    rules: (prefix of a name, formula), in order; "{w}" stands for the parameter and "{g}" for its
      derivative. The name without a prefix is the parameter itself.
    settings: name -> default, None if there is none.
    state: the prefixes of what starts with 0.
  """

  rules: tuple[tuple[str, str], ...]
  settings: Mapping[str, float | None]
  state: tuple[str, ...] = ()


_MOMENTS = (
  ("m_", "beta1 * m_{w} + (1 - beta1) * {g}"),
  ("v_", "beta2 * v_{w} + (1 - beta2) * ({g})**2"),
  ("mhat_", "m_{w}' / (1 - beta1**t)"),
  ("vhat_", "v_{w}' / (1 - beta2**t)"),
)
_ADAM_STEP = "{w} - learning_rate * mhat_{w}' / (sqrt(vhat_{w}') + eps)"
_VELOCITY = ("v_", "momentum * v_{w} + {g}")
OPTIMIZERS: dict[str, Optimizer] = {
  "sgd": Optimizer((("", "{w} - learning_rate * {g}"),), {}),
  "momentum": Optimizer(
    (_VELOCITY, ("", "{w} - learning_rate * v_{w}'")), {"momentum": 0.9}, ("v_",)
  ),
  "nesterov": Optimizer(
    (_VELOCITY, ("", "{w} - learning_rate * ({g} + momentum * v_{w}')")), {"momentum": 0.9}, ("v_",)
  ),
  "rmsprop": Optimizer(
    (
      ("v_", "rho * v_{w} + (1 - rho) * ({g})**2"),
      ("", "{w} - learning_rate * {g} / (sqrt(v_{w}') + eps)"),
    ),
    {"rho": 0.9, "eps": 1e-8},
    ("v_",),
  ),
  "adagrad": Optimizer(
    (
      ("s_", "s_{w} + ({g})**2"),
      ("", "{w} - learning_rate * {g} / (sqrt(s_{w}') + eps)"),
    ),
    {"eps": 1e-8},
    ("s_",),
  ),
  "adam": Optimizer(
    (*_MOMENTS, ("", _ADAM_STEP)),
    {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    ("m_", "v_"),
  ),
  "adamw": Optimizer(
    (*_MOMENTS, ("", f"{_ADAM_STEP} - learning_rate * weight_decay * {{w}}")),
    {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    ("m_", "v_"),
  ),
}


def rules(optimizer: str, parameter: str, loss: str) -> dict[str, str]:
  """Returns the rules for one parameter: name -> formula of its value after the step."""
  slope = f"d{loss}/d{parameter}"
  return {
    f"{prefix}{parameter}": formula.format(w=parameter, g=slope)
    for prefix, formula in OPTIMIZERS[optimizer].rules
  }
