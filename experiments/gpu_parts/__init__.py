"""The parts of the GPU check; `experiments.gpu_check` runs each as a process of its own.

A part is a module with a function `measure`; `__main__.py` says how one is run. `part.py` has what
a part is given and where its measurements go; `networks.py`, `datasets.py`, `timing.py` and
`processes.py` have what several parts measure, and with what.
"""
