"""Files that are there whole or not at all: what a run keeps to go on, locks, signals.

Read `store.py` first.

Imports: errors.
"""
