"""What a step of training needs beside a network: losses, optimizers, schedules, metrics.

Each module stands on its own; read `losses.py` first.

Imports: errors.
"""
