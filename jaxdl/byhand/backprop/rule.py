"""What a rule is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import InputError

Gradients = tuple[np.ndarray, dict[str, np.ndarray]]  # with respect to input and parameters


class NoDerivationError(InputError):
  """A model, loss, activation or optimizer whose gradient has not been derived here yet."""


class Rule(NamedTuple):
  """A function and its derivative."""

  forward: Callable[..., tuple[np.ndarray, Any]]
  backward: Callable[[Any, np.ndarray], Gradients]
