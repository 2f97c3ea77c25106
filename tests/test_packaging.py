"""What is installed, and the lock files: complete, consistent, and without any address."""

import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import jaxdl

LOCKS = {
  name: (ROOT / name).read_text()
  for name in ("requirements.lock", "requirements-prepare.lock", "requirements-peers.lock")
}


def _pins(text):
  """Returns {(name, marker): version}; a name has several pins where Python versions differ."""
  pattern = r"^([a-z0-9._-]+)==(\S+?)(?: ; (.*?))? \\$"
  return {(name, marker): version for name, version, marker in re.findall(pattern, text, re.M)}


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash_and_no_address(name):
  text = LOCKS[name]
  assert not re.search(r"https?:|file:|--index|--find-links|^-e", text, re.M)
  blocks = re.split(r"\n(?=[a-z0-9])", text[text.index("absl-py==") :])
  assert len(blocks) == len(_pins(text))
  for block in blocks:
    assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block


def test_small_lock_is_part_of_the_large_one():
  small, large, _ = (_pins(text) for text in LOCKS.values())
  large_by_name = {}
  for (name, _), version in large.items():
    large_by_name.setdefault(name, set()).add(version)
  for (name, _), version in small.items():
    assert version in large_by_name[name]
  assert not any(name.startswith("tensorflow-cpu") for name, _ in small)
  assert any(name.startswith("tensorflow-cpu") for name, _ in large)


def test_the_tools_have_the_versions_of_everything_else():
  tools = {}
  for (name, _), version in _pins((ROOT / "requirements-tools.lock").read_text()).items():
    tools.setdefault(name, set()).add(version)
  for (name, _), version in _pins(LOCKS["requirements.lock"]).items():
    assert version in tools[name]
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  for requirement in project["optional-dependencies"]["docs"]:
    assert re.match(r"[A-Za-z0-9._-]+", requirement)[0] in tools


def test_peers_are_locked_in_their_versions():
  """One version each, but for those whose newest needs a newer Python than 3.11."""
  versions = {}
  for (name, _), version in _pins(LOCKS["requirements-peers.lock"]).items():
    versions.setdefault(name, set()).add(version)
  for line in (ROOT / "requirements-peers.in").read_text().splitlines():
    if line and not line.startswith("#"):
      name = re.match(r"[A-Za-z0-9._-]+", line)[0]
      assert name in versions, line


def test_every_dependency_is_locked():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  names = {name for name, _ in _pins(LOCKS["requirements.lock"])}
  for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
    assert re.sub(r"[-_.]+", "-", name).lower() in names


def test_all_modules_and_scripts_are_installed_and_nothing_else(installed):
  """No test and no C++, and one name in site-packages; `test_readme` runs what is installed."""
  (metadata,) = installed.glob("*.dist-info")
  assert {path.name for path in installed.iterdir()} == {"bin", "jaxdl", metadata.name}
  found = {path for path in (installed / "jaxdl").rglob("*") if path.is_file()}
  expected = [*(ROOT / "jaxdl").rglob("*.py"), ROOT / "jaxdl" / "py.typed"]
  expected += (ROOT / "jaxdl" / "report" / "html" / "templates").iterdir()
  expected = {installed / path.relative_to(ROOT) for path in expected}
  scripts = [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "experiments").rglob("*.toml")]
  scripts += (ROOT / "ml_collections_configs").glob("*.py")
  assert found == expected | {installed / "jaxdl" / path.relative_to(ROOT) for path in scripts}
  assert (metadata / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_metadata(installed):
  (folder,) = installed.glob("*.dist-info")
  found = importlib.metadata.Distribution.at(folder)
  extras = {
    "accessibility",
    "cluster",
    "docs",
    "fuzz",
    "notebook",
    "prepare",
    "tensorboard",
    "test",
  }
  assert set(found.metadata.get_all("Provides-Extra")) == extras
  assert [(point.group, point.name) for point in found.entry_points] == [
    ("console_scripts", "jaxdl")
  ]
  assert "Typing :: Typed" in found.metadata.get_all("Classifier")
  assert found.metadata["License-Expression"] == "Apache-2.0"


@pytest.mark.slow
def test_the_installed_command_needs_no_clone(installed, tmp_path):
  """In an empty folder, where only what is installed is found."""

  def run(*arguments):
    return subprocess.run(
      [installed / "bin" / "jaxdl", *arguments],
      capture_output=True,
      text=True,
      cwd=tmp_path,
      # A path that the terminal cannot show is printed with escapes.
      env={**os.environ, "PYTHONPATH": str(installed), "PYTHONIOENCODING": "ascii"},
    )

  assert run("--version").stdout == f"{jaxdl.__version__}\n"
  # A module in the current folder, and a data set that every installation has.
  (tmp_path / "mine.py").write_text("import optax\n\nmake = optax.adam\n")
  changes = ("--config.arms.lion.optimizer=mine:make", "--workdir=Läufe")
  trained = run("run", "compare:smoke", *changes)
  assert trained.returncode == 0, trained.stderr
  assert trained.stdout.endswith("Report: L\\xe4ufe/report.html\n")
  origin = json.loads((tmp_path / "Läufe" / "provenance.json").read_text())
  assert origin["command"] == ["jaxdl", "run", "compare:smoke", *changes]
  assert (tmp_path / "Läufe" / "report.html").is_file()


def test_the_version_is_that_of_the_project():
  pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
  assert jaxdl.__version__ == pyproject["project"]["version"]


def test_a_system_without_file_locks_is_named(monkeypatch):
  """As Windows: the module `fcntl` is only in Python for Linux and macOS."""
  monkeypatch.setitem(sys.modules, "fcntl", None)
  with pytest.raises(ImportError, match=r"^jaxdl runs on Linux and macOS; on Windows, .*\(WSL\)$"):
    runpy.run_path(str(ROOT / "jaxdl" / "__init__.py"))
