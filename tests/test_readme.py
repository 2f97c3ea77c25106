"""The Python lines of the README and of longer pages run as they stand; what it names is there."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# Pages whose lines train longer than those that `test_docs` runs.
PAGES = ("how-to/own-model.md", "how-to/own-data.md", "architecture.md")


@pytest.mark.slow
def test_python_lines_run(tmp_path, installed):
  texts = [README, *((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)]
  code = "\n".join(re.findall(r"```python\n(.*?)```", "".join(texts), re.DOTALL))
  result = subprocess.run(
    [sys.executable, "-W", "error", "-c", code],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    # Compiled as users have it: it trains more than other tests.
    env={**os.environ, "PYTHONPATH": str(installed), "XLA_FLAGS": ""},
  )
  assert result.returncode == 0, result.stderr
  assert re.search(r"test_accuracy +sgd +adam", result.stdout)
  assert (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
  assert (tmp_path / "runs" / "adam" / "report.md").is_file()


def test_every_package_and_file_is_in_the_architecture():
  table = README.split("## Architecture")[1].split("## Development")[0]
  for path in (ROOT / "jaxdl").iterdir():
    if path.suffix == ".py" and path.stem != "__init__":
      assert f"`{path.name}`" in table
    elif (path / "__init__.py").exists():
      assert f"`{path.name}/`" in table


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))))
def test_make_targets_are_there(target):
  assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
