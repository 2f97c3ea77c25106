"""Scripts, each started as `python -m experiments.NAME`."""

import sys

if sys.argv[0] == "-m":  # Python is about to import one of them, which takes seconds
  from jaxdl.store import interrupts

  interrupts.install()
