"""Pages of HTML in one file: the template, its style and script, and Markdown as HTML."""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxdl.errors import one_line

if TYPE_CHECKING:
  import jinja2

_FOLDER = pathlib.Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
  """Returns a page; every text in the context is escaped where it stands.

  The page may run no script but its own, and may load nothing but what is in it.
  """
  style, script = ((_FOLDER / f"page.{suffix}").read_text("utf-8") for suffix in ("css", "js"))
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  text = (
    _environment()
    .get_template(template)
    .render(style=style, script=script, script_hash=f"sha256-{digest}", **context)
  )
  # What is left of a name that no encoding has, such as half of a surrogate pair.
  return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


@functools.cache
def _environment() -> "jinja2.Environment":
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["one_line"] = one_line
  environment.filters["markdown"] = markdown
  return environment


def markdown(text: str, folder: pathlib.Path | None = None) -> Any:
  """Returns Markdown as HTML; HTML in it stays text, and a picture is loaded from `folder`."""
  import markupsafe

  return markupsafe.Markup(_markdown().render(text, {"folder": folder}))


@functools.cache
def _markdown() -> Any:
  from markdown_it import MarkdownIt

  parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
  scroll = '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n'
  parser.add_render_rule("table_open", lambda *_: scroll)
  parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
  parser.add_render_rule("image", _image)
  return parser


def _image(_: Any, tokens: Sequence[Any], index: int, __: Any, context: Any) -> str:
  """Returns a picture of the folder with its caption; only the caption if there is no picture."""
  from markupsafe import escape

  from jaxdl.report.html.examples import picture_url

  folder, caption = context["folder"], escape(tokens[index].content)
  file = None if folder is None else folder / str(tokens[index].attrs["src"])
  if file is None or not file.is_file() or file.suffix != ".png":
    return str(caption)
  return f'<img class="picture" src="{picture_url(file.read_bytes())}" alt="{caption}">'
