"""Controlled experiments on training networks: populations of seeds and arms, and verdicts.

What a user needs is here and in the packages' own `__init__`:

  Arm, Experiment, Population        one condition, a question, all its members trained
  load, from_arrays                  data: by name, or arrays of one's own
  select_classes, split_validation, Dataset
  train_population                   seeds x arms, from Python
  compare, run, Result               seeds x arms, verdicts, and a report
  summary                            the layers of an arm's model
  open_run                           a finished run: its tables, parameters, predictions
  InputError                         what is raised for bad input, in one line

Names are imported when they are first used, so that `import jaxdl` starts nothing and takes no
time.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("fcntl") is None:  # locks of files, which only these systems have
  raise ImportError(
    "jaxdl runs on Linux and macOS; on Windows, use the Windows Subsystem for Linux (WSL)"
  )

if TYPE_CHECKING:
  from jaxdl.arm import Arm as Arm
  from jaxdl.data import Dataset as Dataset
  from jaxdl.data import from_arrays as from_arrays
  from jaxdl.data import load as load
  from jaxdl.data import select_classes as select_classes
  from jaxdl.data import split_validation as split_validation
  from jaxdl.errors import InputError as InputError
  from jaxdl.experiment import Experiment as Experiment
  from jaxdl.launch import Result as Result
  from jaxdl.launch import compare as compare
  from jaxdl.launch import run as run
  from jaxdl.model_summary import summary as summary
  from jaxdl.opened import open_run as open_run
  from jaxdl.population import Population as Population
  from jaxdl.population import train_population as train_population

_MODULES = {
  "Arm": "arm",
  "Dataset": "data",
  "Experiment": "experiment",
  "InputError": "errors",
  "Population": "population",
  "Result": "launch",
  "compare": "launch",
  "from_arrays": "data",
  "load": "data",
  "open_run": "opened",
  "run": "launch",
  "select_classes": "data",
  "split_validation": "data",
  "summary": "model_summary",
  "train_population": "population",
}
__all__ = tuple(_MODULES)


def __getattr__(name: str) -> Any:
  if name == "__version__":
    from importlib import metadata

    return metadata.version("jaxdl")
  if name not in _MODULES:
    raise AttributeError(f"module 'jaxdl' has no attribute {name!r}")
  value = getattr(importlib.import_module(f"jaxdl.{_MODULES[name]}"), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted([*globals(), *_MODULES])
