"""Imports point one way, and what is heavy or optional is imported where it is used."""

import ast
import graphlib
import subprocess
import sys

import pytest
from conftest import ROOT

LIBRARY = ROOT / "jaxdl"
MODULES = sorted(LIBRARY.rglob("*.py"))


def _imports(path):
  """Yields the dotted names that a file imports, wherever in the file."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      package = "." * node.level + (f"{node.module}." if node.module else "")
      yield from (f"{package}{alias.name}" for alias in node.names)


def _module(path):
  """Returns the dotted name of a file below the library, without `jaxdl`."""
  return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


def _own_imports(path):
  """Yields the modules of the library that a file imports, without `jaxdl`."""
  modules = {_module(other) for other in MODULES}
  for name in _imports(path):
    parts = name.split(".")
    if parts[0] == "jaxdl":
      yield next(
        found for end in range(len(parts), 0, -1) if (found := ".".join(parts[1:end])) in modules
      )


def _declared(package):
  """Returns what the docstring of a package says that it imports."""
  text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text("utf-8")))
  return set(
    text.split("Imports: ")[1].partition(".\n")[0].rstrip(".").replace("\n", " ").split(", ")
  )


PACKAGES = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_what_its_docstring_says(package):
  declared = _declared(package)
  for path in (LIBRARY / package).rglob("*.py"):
    for name in _own_imports(path):
      top = name.split(".")[0]
      assert top == package or {top, name} & declared, f"{_module(path)} imports {name}"


def test_imports_point_one_way():
  """No package, and no file above the packages, reaches itself; nor does any module."""
  declared_doors = {door for package in PACKAGES for door in _declared(package) if "." in door}

  def room(module):
    return module if module in declared_doors else module.split(".")[0]

  for of in (room, lambda module: module):
    graph = {}
    for path in MODULES:
      if path == LIBRARY / "__init__.py":  # the face
        continue
      here = of(_module(path))
      faces = {other for other in _own_imports(path) if of(other) != here}
      graph.setdefault(here, set()).update(of(other) for other in faces)
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_the_library_is_no_program(path):
  for name in _imports(path):
    assert not name.startswith("."), "a relative import"
    top = name.split(".")[0]
    assert top not in ("experiments", "ml_collections_configs", "ml_collections", "tests")
    assert name not in ("absl.flags", "absl.app")


def test_only_the_report_draws():
  users = {_module(p) for p in MODULES if any(n.split(".")[0] == "matplotlib" for n in _imports(p))}
  assert {user.split(".")[0] for user in users} == {"report"}


def test_experiments_do_not_import_each_other():
  """And they import what is beside them by relative names, since the package has two names."""
  files = (ROOT / "experiments").glob("*.py")
  scripts = {
    file.stem for file in files if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
  }
  assert "compare_initializers" in scripts
  assert "command_line" not in scripts
  for path in (ROOT / "experiments").rglob("*.py"):
    for name in _imports(path):
      assert name.split(".")[0] not in ("experiments", "ml_collections_configs")
      assert not (name.startswith(".") and name.lstrip(".").split(".")[0] in scripts)


def test_the_face_has_what_it_names():
  """And importing it imports nothing else."""
  code = """
import sys, jaxdl
assert not {"jax", "numpy"} & set(sys.modules)
assert {getattr(jaxdl, name).__name__ for name in jaxdl.__all__} == set(jaxdl.__all__)
assert set(jaxdl.__all__) <= set(dir(jaxdl))
try:
  jaxdl.nothing
except AttributeError as error:
  assert "nothing" in str(error)
else:
  raise AssertionError
"""
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


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
