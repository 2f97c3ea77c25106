"""The notebooks of `examples/` run, and what is stored in them is what they give."""

import re
import sys

import jax
import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "examples"))

import execute

NAMES = [path.name for path in execute.NOTEBOOKS]


def _structure(notebook):
  """Returns what kind of outputs each cell has; their numbers differ between kinds of machines."""
  return [
    [(output.output_type, *sorted(output.get("data", {}))) for output in cell.outputs]
    for cell in notebook.cells
    if cell.cell_type == "code"
  ]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_gives_what_is_stored(name, tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("XLA_FLAGS", "")  # a notebook trains more than other tests
  for setting in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"):
    monkeypatch.setenv(setting.upper(), str(getattr(jax.config, setting)))
  stored = nbformat.read(str(ROOT / "examples" / name), as_version=4)
  executed = execute.execute(ROOT / "examples" / name, str(tmp_path))
  assert [cell.source for cell in executed.cells] == [cell.source for cell in stored.cells]
  assert _structure(executed) == _structure(stored)
  assert any(_structure(stored))
  assert executed.metadata == stored.metadata


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_a_machine_is_stored(name):
  text = (ROOT / "examples" / name).read_text(encoding="utf-8")
  assert not re.search(r"(?<![\w.:/])/(home|root|tmp|usr|work|Users)/", text)
