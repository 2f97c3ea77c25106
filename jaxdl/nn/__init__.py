"""Networks: models, their layers, initial weights, and what is done to training images.

Read `models.py` first.

Imports: errors, cpu.matmul.
"""
