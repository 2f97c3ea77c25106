"""What a run needs in order to resume: checkpoints and results, written atomically; locks; signals.

Read `store.py` first: the folder of a run. `files.py` writes files atomically.

Imports: errors.
"""
