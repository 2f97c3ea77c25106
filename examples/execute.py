"""Runs the notebooks of this folder and stores their outputs.

python examples/execute.py [NOTEBOOK ...]

Outputs that differ from run to run for no reason are left out: progress bars, the times of cells,
the version of Python. Pictures get 256 colours, a quarter of the size.
"""

import base64
import io
import pathlib
import sys
import tempfile

import nbclient
import nbformat
from PIL import Image

HERE = pathlib.Path(__file__).parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
_WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: pathlib.Path, folder: str) -> nbformat.NotebookNode:
  """Returns a notebook with the outputs of all cells, run in a folder of its own.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell fails.
  """
  notebook = nbformat.read(path, as_version=4)
  resources = {"metadata": {"path": folder}}
  nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
  notebook.metadata = {"kernelspec": {"display_name": "Python 3", "name": "python3"}}
  notebook.metadata["language_info"] = {"name": "python"}
  for place, cell in enumerate(notebook.cells):
    cell.id, cell.metadata = f"cell-{place}", {}
    if cell.cell_type == "code":
      cell.outputs = [_plain(output) for output in cell.outputs if not _is_widget(output)]
  return notebook


def _is_widget(output: nbformat.NotebookNode) -> bool:
  return _WIDGET in output.get("data", {})


def _plain(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
  if "metadata" in output:
    output.metadata = {}
  picture = output.get("data", {}).get("image/png")
  if picture is not None:
    output.data["image/png"] = _shrink(picture)
  return output


def _shrink(picture: str) -> str:
  with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
    small = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3))
  stream = io.BytesIO()
  small.quantize(256).save(stream, "PNG", optimize=True)
  return base64.b64encode(stream.getvalue()).decode()


def main(paths: list[pathlib.Path]):
  """Runs notebooks and writes them with their outputs."""
  for path in paths:
    with tempfile.TemporaryDirectory() as folder:
      notebook = execute(path, folder)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    print(path)


if __name__ == "__main__":
  main([pathlib.Path(name) for name in sys.argv[1:]] or NOTEBOOKS)
