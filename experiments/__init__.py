"""Scripts, each started as `python -m experiments.NAME`, or through the command `jaxdl`.

Where jaxdl is installed, this package is `jaxdl.experiments`, so its modules import each other by
relative names. In both places the configs are in a folder beside it.
"""

import pathlib
import sys

CONFIGS = pathlib.Path(__file__).parents[1] / "ml_collections_configs"


def escape_output():
  """Has text that the terminal cannot show, such as the name of a folder, printed with escapes."""
  for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it is closed
    stream.reconfigure(errors="backslashreplace")


if sys.argv[0] == "-m" or pathlib.PurePath(sys.argv[0]).name == "jaxdl":
  # Python is about to import a script, which takes seconds.
  from jaxdl.store import interrupts

  interrupts.install()
  escape_output()
