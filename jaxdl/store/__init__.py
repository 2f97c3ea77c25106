"""What a run needs in order to resume: checkpoints and results, written atomically; locks; signals.

Read `store.py` first: the chunks of a run on disk. `run_folder.py` names what is in the folder,
`packing.py` has the format of arrays, `checkpoints.py` saves in the background, `files.py` writes
atomically, `locks.py` keeps other processes out.

Imports: errors.
"""
