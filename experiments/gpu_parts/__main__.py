"""Runs a part of the GPU check.

  python -m experiments.gpu_parts PART --device=gpu --scale=full --data=FILE --out=FILE.jsonl

Every measurement is a line of JSON in the output file as soon as there is one: a row of a table,
or a check, which holds or does not. `trial`, `steps` and `pack` are no parts: the first two train
with other settings, for `agreement` and `loops`, and the last writes the data.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import jax

from jaxdl.population import environment

from . import agreement, datasets, loops
from .part import Part

_PARTS = (
  *("machine", "agreement", "mnist", "populations", "pytorch", "coursework", "memory"),
  *("profile", "loops"),
)
_OTHERS = {"trial": agreement.trial, "steps": loops.steps, "pack": datasets.pack}


def main(argv: Sequence[str]) -> int:
  """Measures one part and returns the exit status."""
  parser = argparse.ArgumentParser(prog="experiments.gpu_parts", allow_abbrev=False)
  parser.add_argument("part", choices=(*_PARTS, *_OTHERS))
  parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
  parser.add_argument("--scale", choices=("full", "tiny"), default="full")
  parser.add_argument("--seconds", type=float, default=60)
  parser.add_argument("--data")
  parser.add_argument("--data_dir")
  parser.add_argument("--out", required=True)
  options = parser.parse_args(argv)
  if options.part in _OTHERS:
    return _OTHERS[options.part](options)
  if options.device == "cpu":
    jax.config.update("jax_platforms", "cpu")
  elif jax.local_devices()[0].platform != "gpu":
    print(f"error: JAX computes on {jax.local_devices()[0].platform} here", file=sys.stderr)
    return 2
  environment.check()
  importlib.import_module(f".{options.part}", __package__).measure(Part(options.part, options))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
