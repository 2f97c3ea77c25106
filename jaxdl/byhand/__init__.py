"""Backpropagation by hand: derived in NumPy, checked against `jax.grad`, and marked on worksheets.

Read `backprop.py` first: every rule with its formula and its shapes. Then `worksheet/`.

Imports: errors, nn, optim.
"""
