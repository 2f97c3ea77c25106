"""What the documentation site needs besides Markdown; MkDocs calls these functions.

Formulas become MathML, which browsers show without a script. Notebooks become pages. A link that
leaves the folder of documents, which is one to a file of the repository for whoever reads it there,
becomes a link to the notebook's page or plain text.
"""

import base64
import html
import posixpath
import re

import nbformat
from latex2mathml import converter
from mkdocs.structure.files import File, Files
from mkdocs.utils import log

_NOTEBOOKS = "examples"
_FORMULA = re.compile(
  r"<(?P<tag>span|div) class=\"arithmatex\">"
  r"(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>",
  re.DOTALL,
)
# In MathML: the name of a function, and one before its argument without a bracket.
_NAME = re.compile(r"<m[io]>([a-z]{2,})</m[io]>")
_APPLIED = re.compile(
  r"((?<!<msup>)<mi>[a-z]{2,}</mi>|<msup><mi>[a-z]{2,}</mi>(?:(?!<msup>).)*?</msup>)"
  r"(?=<(?:mi|mn|mfrac|msub|mrow)\b)"
)
# [text](target), outside of pictures.
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config) -> Files:
  """Adds a page, and its pictures, for each notebook."""
  root = posixpath.dirname(config.config_file_path)
  for name in sorted(_notebooks(config.nav)):
    pictures: list[bytes] = []
    notebook = nbformat.read(f"{root}/{_NOTEBOOKS}/{name}.ipynb", as_version=4)
    text = _page(notebook, name, pictures)
    files.append(File.generated(config, f"notebooks/{name}.md", content=text))
    for number, picture in enumerate(pictures):
      path = f"notebooks/{name}_{number}.png"
      files.append(File.generated(config, path, content=picture))
  return files


def _notebooks(nav) -> set[str]:
  """Returns the names of the notebooks that the navigation lists."""
  if isinstance(nav, str):
    found = re.fullmatch(r"notebooks/(\w+)\.md", nav)
    return {found[1]} if found else set()
  items = nav.values() if isinstance(nav, dict) else nav
  return set().union(*map(_notebooks, items))


def _page(notebook: nbformat.NotebookNode, name: str, pictures: list[bytes]) -> str:
  """Returns a notebook as Markdown; its pictures are added to `pictures`."""
  parts = []
  for cell in notebook.cells:
    if cell.cell_type == "markdown":
      parts.append(cell.source)
      continue
    parts.append(f"```python\n{cell.source}\n```")
    for output in cell.outputs:
      data = output.get("data", {})
      if "image/png" in data:
        parts.append(f"![]({name}_{len(pictures)}.png)")
        pictures.append(base64.b64decode(data["image/png"]))
      elif "text/html" in data:
        parts.append(f'<div class="output">\n{_one_block(data["text/html"])}\n</div>')
      else:
        text = output.get("text") or data.get("text/plain", "")
        parts.append(f"```text\n{text.rstrip()}\n```")
  first, *rest = parts
  place = f"This is `{_NOTEBOOKS}/{name}.ipynb`, with its outputs."
  return "\n\n".join([first, place, *rest]) + "\n"


def _one_block(text: str) -> str:
  """Returns HTML without empty lines, which would end it in Markdown."""
  return re.sub(r"\n\s*\n+", "\n", text)


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
  """Turns links that leave the documents into links to a notebook's page, or into text."""
  folder = posixpath.dirname(page.file.src_uri)

  def follow(link: re.Match) -> str:
    if re.match(r"[a-z]+:", link["target"]):
      return link[0]
    path = posixpath.normpath(posixpath.join(folder, link["target"]))
    if not path.startswith("../"):
      return link[0]
    notebook = re.fullmatch(rf"\.\./{_NOTEBOOKS}/(\w+)\.ipynb", path)
    if notebook:
      place = posixpath.relpath(f"notebooks/{notebook[1]}.md", folder or ".")
      return f"[{link['text']}]({place})"
    if not posixpath.exists(posixpath.join(config.docs_dir, path)):
      log.warning("%s links to %s, which does not exist", page.file.src_uri, path)
    return link["text"]

  return _LINK.sub(follow, markdown)


def on_page_content(content: str, **_) -> str:
  """Turns formulas into MathML."""
  return _FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match) -> str:
  text = formula["inline"] if formula["inline"] is not None else formula["block"]
  display = "inline" if formula["inline"] is not None else "block"
  source = html.unescape(text).strip()
  mathml = _spaced(converter.convert(source, display=display))
  # For those who copy the formula, or search for it.
  return mathml.replace("<math ", f'<math alttext="{html.escape(source)}" ', 1)


def _spaced(mathml: str) -> str:
  """Returns MathML with a thin space after the name of a function, as in log p."""
  named = _NAME.sub(r"<mi>\1</mi>", mathml)
  return _APPLIED.sub(r'\1<mspace width="0.167em" />', named)
