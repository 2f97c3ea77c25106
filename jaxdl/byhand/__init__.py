"""Backpropagation by hand: derived in NumPy, checked against `jax.grad`, and marked on worksheets.

Read `backprop/` first: every rule with its formula and its shapes. Then `worksheet/`. `check`
checks a backward pass of one's own.

Imports: errors, nn, optim.
"""

from jaxdl.byhand.backward_check import BackwardCheck, CheckedGradient, check

__all__ = ("BackwardCheck", "CheckedGradient", "check")
