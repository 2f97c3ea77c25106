"""A finished run as TensorBoard's event files, which other trackers import.

  jaxdl export --workdir=DIR --out=DIR

writes one run per member, `ARM/seed_N`: curves by epoch, the results as `final/NAME`, and the
settings as hyperparameters. A second export to the same folder replaces what the first one wrote.
`jaxdl run ... --tensorboard` does the same while a run trains. docs/trackers.md says which trackers
import these files.
"""

import sys
from collections.abc import Sequence

from absl import flags

import jaxdl
from jaxdl.errors import InputError, one_line
from jaxdl.store import files


def main(argv: Sequence[str]) -> int:
  """Exports the run and returns the exit status."""
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "Directory of a finished run.", flag_values=values)
  flags.DEFINE_string("out", None, "Directory for the event files.", flag_values=values)
  if {"--help", "-h", "--helpfull"} & set(argv):
    print(f"{__doc__}\n{values.get_help()}")
    return 0
  try:
    rest = values(argv)
    if rest[1:]:
      raise InputError(f"unknown argument {rest[1]!r}; settings are given as --name=value")
    for name in values:
      if not values[name].value:
        raise InputError(f"--{name} is {'missing' if values[name].value is None else 'empty'}")
    run, out = jaxdl.open_run(values.workdir), files.expand_home(values.out)
    run.to_tensorboard(out)
  except (flags.Error, InputError) as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
  print(f"{len(run.members)} members: tensorboard --logdir={one_line(out)}")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
