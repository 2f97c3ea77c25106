"""The variables of all members as files, one per arm: safetensors, which run no code when read.

A file has every variable of the arm under its path, e.g. `params/Dense_0/kernel`, with a leading
axis over the seeds that the arm was trained with, `[S, ...]`, and these seeds in its metadata.
"""

import hashlib
import json
import pathlib
import urllib.parse

import numpy as np

from jaxdl.errors import InputError
from jaxdl.population.results import Population

# The folder of the files.
PARAMS = "params"
_MAX_NAME = 100


def folder_name(arm: str) -> str:
  """Returns an arm's name for files and folders: everything unusual is percent-encoded."""
  name = urllib.parse.quote(arm, safe=" ")
  if len(name) > _MAX_NAME or name.startswith("."):
    name = f"{name[:_MAX_NAME].lstrip('.')}-{hashlib.sha256(arm.encode()).hexdigest()[:8]}"
  return name


def file_name(arm: str) -> str:
  """Returns the name of an arm's file."""
  return f"{folder_name(arm)}.safetensors"


def write(folder: pathlib.Path, population: Population):
  """Writes the variables of every arm of a population that kept them into a new folder."""
  from safetensors.numpy import save_file

  folder.mkdir()
  seeds = np.array(population.seeds)
  for place, (arm, variables) in enumerate((population.variables or {}).items()):
    arrays = {path: np.ascontiguousarray(leaf) for path, leaf in variables.items()}
    metadata = {"arm": arm, "seeds": json.dumps(seeds[population.is_trained[:, place]].tolist())}
    save_file(arrays, folder / file_name(arm), metadata)


def read(folder: pathlib.Path, arm: str) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
  """Returns the seeds and the variables by path, `[S, ...]`, of an arm.

  Raises:
    InputError: there is no such file, or it is damaged.
  """
  from safetensors import SafetensorError, safe_open

  file = folder / file_name(arm)
  try:
    with safe_open(file, framework="np") as opened:
      seeds, names = tuple(json.loads(opened.metadata()["seeds"])), list(opened.keys())
      return seeds, {path: opened.get_tensor(path) for path in names}
  except FileNotFoundError as error:
    raise InputError(
      f"the run has kept no parameters of arm {arm!r}: there is no {str(file)!r}"
    ) from error
  except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
    raise InputError(f"cannot read {str(file)!r}: {error}") from error
