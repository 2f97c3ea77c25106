"""What training needs besides a network: losses, optimizers, learning rate schedules, metrics.

The modules are independent of each other; read `losses.py` first.

Imports: calls, errors.
"""
