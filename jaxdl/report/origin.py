"""Where a population comes from: command, versions, devices, source, data."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.population import environment
from jaxdl.population.results import Population
from jaxdl.recipe import Form, form_of

_PACKAGES = (
  "jaxdl",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "numpy",
  "scipy",
  "pandas",
  "matplotlib",
  "tensorflow-datasets",
)


def provenance(dataset: Dataset, trained: Population) -> dict[str, Any]:
  """Returns where a population comes from: command, versions, devices, data, seconds, chunks."""
  devices = jax.local_devices()
  return {
    "command": environment.command(),
    "python": platform.python_version(),
    "versions": {name: _version(name) for name in _PACKAGES},
    "platform": devices[0].platform,
    "device_kind": devices[0].device_kind,
    "device_count": len(devices),
    "matmul_precision": jax.config.jax_default_matmul_precision or "default",
    "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "dataset": {
      "name": dataset.name,
      "description": dataset.description,
      "class_names": list(dataset.class_names),
      "form": _plain_form(form_of(dataset)),
      "checksum": dataset.checksum,
      "num_train": dataset.num_train,
      "num_validation": len(dataset.validation),
      "num_test": dataset.num_test,
    },
    "compile_seconds": round(trained.compile_seconds, 3),
    "train_seconds": round(float(np.nansum(trained.train_seconds)), 3),
    "num_workers": trained.num_workers,
    "programs": [layout._asdict() for layout in trained.chunks],
    "halved_chunks": list(trained.split_chunks),
    "missing_seeds": list(trained.missing_seeds),
    "failures": dict(trained.failures),
    "chunk_size": trained.chunks[0].chunk_size if len(trained.chunks) == 1 else None,
  }


def _plain_form(form: Form) -> dict[str, Any]:
  """Returns the form of the data for JSON; what preprocesses them as text."""
  plain = form._asdict()
  if form.preprocess is not None:
    plain["preprocess"] = str(form.preprocess)
  return plain


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def source_revision() -> dict[str, Any]:
  """Returns the git revision and whether the working tree is clean, or None where unknown."""
  git = ["git", "-C", str(pathlib.Path(__file__).parent)]
  try:
    run = [
      subprocess.run(
        [*git, *command], capture_output=True, text=True, check=True, timeout=10
      ).stdout
      for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
    ]
  except (OSError, subprocess.SubprocessError):
    return {"revision": None, "clean": None}
  return {"revision": run[0].strip(), "clean": not run[1].strip()}
