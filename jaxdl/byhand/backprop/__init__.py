"""Gradients derived by hand, in NumPy, without automatic differentiation.

A second implementation of the gradients that the project trains with, which `gradient_check.py`
compares with `jax.grad`, and the chain rule spelled out for learners. Read `layers.py` and
`activations.py` first, then `losses.py`, and `chain.py`, which puts them together. What deeper
networks add is in `normalization.py` and `attention.py`, the optimizers' steps in `optimizers.py`.

Each rule is a pair of functions. `forward(x, *arguments)` returns the output and a cache: what the
backward pass needs. `backward(cache, dy)` takes dL/dy, of the output's shape, and returns dL/dx, of
the input's shape, and a dict with the gradient of each parameter (empty if there is none). L is a
number, and `dy`, `dx`, ... stand for its derivatives with respect to `y`, `x`, ... Sums over an
index are always written out.

Letters: `B` batch, `H W` image, `L` positions of a sequence, `D` input features or channels, `F`
output features or channels, `C` classes. Where a function has a kink, the derivative is the one
that JAX takes.
"""

from jaxdl.byhand.backprop.chain import (
  ACTIVATIONS,
  LOSSES,
  LOSSES_OF_NUMBERS,
  MODELS,
  RULES,
  SMOOTHABLE,
  Pass,
  check_derived,
  get_rule,
  loss_and_gradients,
)
from jaxdl.byhand.backprop.optimizers import OPTIMIZERS, descend
from jaxdl.byhand.backprop.rule import Gradients, NoDerivationError, Rule

__all__ = (
  "ACTIVATIONS",
  "LOSSES",
  "LOSSES_OF_NUMBERS",
  "MODELS",
  "OPTIMIZERS",
  "RULES",
  "SMOOTHABLE",
  "Gradients",
  "NoDerivationError",
  "Pass",
  "Rule",
  "check_derived",
  "descend",
  "get_rule",
  "loss_and_gradients",
)
