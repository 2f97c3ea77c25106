"""Networks: models, their layers, initial weights, and the augmentation of training images.

Read `models.py` first.

Imports: calls, errors, cpu.matmul.
"""
