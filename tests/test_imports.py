"""Imports point one way, and what is heavy or optional is imported where it is used."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

# Each module may import from the layers before its own, not from its own.
LAYERS = (
  {"errors", "types"},
  {"files", "layers"},
  {"cpu_layers"},
  {
    "augment",
    "backprop",
    "data",
    "devices",
    "expressions",
    "figures",
    "graph_layout",
    "initializers",
    "interrupts",
    "losses",
    "metrics",
    "optimizers",
    "progress",
    "schedules",
    "stats",
  },
  {"models", "store", "worksheet"},
  {"arm", "gradient_check"},
  {"train"},
  {"chunks", "diagnostics"},
  {"plan", "timing"},
  {"programs"},
  {"chunk_training"},
  {"executors"},
  {"multihost", "population"},
  {
    "benchmark_plots",
    "comparison_plots",
    "ensembles",
    "experiment",
    "graph_plots",
    "ledger",
    "plots",
    "sweeps",
  },
  {"cluster", "report"},
)
MODULES = sorted((ROOT / "jaxdl").glob("*.py"))


def _imports(path):
  """Yields the dotted names that a file imports, wherever in the file."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path.name} has a relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(module):
  return next(i for i, layer in enumerate(LAYERS) if module in layer)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_one_way(path):
  if path.stem == "__init__":
    assert list(_imports(path)) == []
    return
  for name in _imports(path):
    top, *rest = name.split(".")
    assert top not in ("experiments", "ml_collections_configs", "ml_collections", "tests")
    assert name != "absl.flags"
    assert name != "absl.app"
    if top == "jaxdl":
      assert _layer(rest[0]) < _layer(path.stem), f"{path.stem} imports {name}"


def test_matplotlib_is_in_five_places():
  users = [p.stem for p in MODULES if any(n.split(".")[0] == "matplotlib" for n in _imports(p))]
  assert users == ["benchmark_plots", "comparison_plots", "figures", "graph_plots", "plots"]


def test_experiments_do_not_import_each_other():
  files = (ROOT / "experiments").glob("*.py")
  scripts = {file.stem for file in files if '"__main__"' in file.read_text(encoding="utf-8")}
  assert "compare_initializers" in scripts
  assert "command_line" not in scripts
  for path in (ROOT / "experiments").glob("*.py"):
    for name in _imports(path):
      assert not (name.startswith("experiments.") and name.split(".")[1] in scripts)


def test_importing_the_library_starts_nothing():
  """No device is claimed, and TFDS and TensorFlow stay out, until something is asked for."""
  code = """
import sys
import jaxdl.report, jaxdl.experiment
assert not {"tensorflow", "tensorflow_datasets", "sklearn"} & set(sys.modules)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_experiment_trains_before_it_imports_what_it_reports_with():
  """Tables, statistics and pictures take longer to import than all the rest."""
  code = """
import sys
from experiments import cifar_mlp, compare_batch_sizes, compare_initializers, compare_losses
from experiments import compare_optimizers, compare_strategies, gradient_flow, mnist_cnn
assert not {"matplotlib", "pandas", "scipy.stats", "statsmodels"} & set(sys.modules)
"""
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
