"""What a run needs in order to resume: checkpoints and results, written atomically; locks; signals.

Read `store.py` first.

Imports: errors.
"""
