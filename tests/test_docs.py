"""The documents: links lead somewhere, and the lines of the tutorials run as they stand."""

import glob
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from conftest import EXPERIMENT_IMPORTS, ROOT, Forks
from test_readme import PAGES as RUN_BY_TEST_README

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(((?!https?:)[^)\s]+)\)")
# What makes a command of a page smaller, by how it begins.
SMALLER = {
  "demo": ("--config.num_seeds=2", "--config.num_epochs=1"),
  "compare": ("--config.num_seeds=16", "--config.base.num_epochs=1"),
  "run benchmark": (
    "--config.train=('mlp',)",
    *("--config.inference=()", "--config.population=()", "--config.rounds=1"),
  ),
  "run compare_batch_sizes": ("--config.num_train=40", "--config.equal_time_epochs=1"),
}


def _text(page):
  return (DOCS / page).read_text(encoding="utf-8")


def _blocks(page):
  """Returns (language, name of a file or empty, content) of every fenced block."""
  return [match.groups(default="") for match in _FENCE.finditer(_text(page))]


def _anchors(text):
  """Returns the anchors of the headings of a page, as code hosts and MkDocs make them."""
  headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
  plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
  return {re.sub(r"\s+", "-", heading) for heading in plain}


@pytest.mark.parametrize(
  "file",
  [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *map(DOCS.joinpath, PAGES)],
  ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_lead_somewhere(file):
  text = file.read_text(encoding="utf-8")
  for link in _LINK.findall(_FENCE.sub("", text)):
    name, _, anchor = link.partition("#")
    target = file.parent / name if name else file
    assert target.is_file(), link
    if anchor:
      assert anchor in _anchors(target.read_text(encoding="utf-8")), link


@pytest.fixture(scope="module")
def jaxdl():
  """Runs the command `jaxdl` with arguments, in a process whose imports are there already."""
  imports = EXPERIMENT_IMPORTS + (
    "import conftest, experiments.__main__\n"
    "figures.save = conftest.save_no_picture  # pictures take most of a small run's time"
  )
  with Forks(imports, "experiments.__main__.main()") as forks:
    yield forks


class _Python:
  """Runs the Python blocks of a page one after the other, as one file."""

  def __init__(self, file):
    self._file, self._names, self._lines = file, {"__name__": "__main__"}, 0

  def __call__(self, code):
    with self._file.open("a", encoding="utf-8") as stream:
      stream.write(code)
    exec(compile("\n" * self._lines + code, str(self._file), "exec"), self._names)
    self._lines += code.count("\n")


def _commands(text):
  """Yields the arguments of each `jaxdl` line; patterns of files are expanded as a shell does."""
  for line in text.replace("\\\n", " ").splitlines():
    program, *arguments = shlex.split(line, comments=True)
    assert program == "jaxdl", line
    yield [name for part in arguments for name in (sorted(glob.glob(part)) or [part])]


def _runs(page):
  return page not in RUN_BY_TEST_README and page.split("/")[0] in ("tutorials", "how-to")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _runs(page)])
def test_the_lines_of_a_page_run(page, jaxdl, tmp_path, monkeypatch):
  """Files that it shows are written, commands and Python run, from the top to the bottom."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  python = _Python(tmp_path / "lines_of_the_page.py")
  for language, name, content in _blocks(page):
    if name:
      (tmp_path / name).parent.mkdir(exist_ok=True)
      (tmp_path / name).write_text(content, encoding="utf-8")
    elif language == "python":
      python(content)
    elif language == "sh":
      for arguments in _commands(content):
        smaller = next((s for key, s in SMALLER.items() if " ".join(arguments).startswith(key)), ())
        done = jaxdl(*arguments, *smaller, cwd=tmp_path)
        # `check` says with status 1 that a claim is wrong.
        assert done.returncode in ((0, 1) if arguments[0] == "check" else (0,)), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", ["tutorials/student.md", "tutorials/teacher.md"])
def test_checked_worksheets_say_what_the_page_says(page, jaxdl, tmp_path):
  command, said = re.search(
    r"^(jaxdl check .*)\n```\n\n> (.*)$", _text(page), re.MULTILINE
  ).groups()
  for _, name, content in _blocks(page):
    if name.endswith(".toml"):
      (tmp_path / name).parent.mkdir(exist_ok=True)
      (tmp_path / name).write_text(content)
  assert said in jaxdl(*shlex.split(command)[1:], cwd=tmp_path).stdout


def test_the_site_is_built_without_warnings_and_needs_no_network(tmp_path):
  pytest.importorskip("mkdocs")
  site = tmp_path / "site"
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={site}"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  pages = {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}
  assert {page.removesuffix(".md") + ".html" for page in PAGES} <= set(pages)
  for text in pages.values():
    assert not re.search(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="?(?:https?:)?//', text)
    assert 'class="arithmatex"' not in text  # a formula that did not become MathML
  assert pages["backprop.html"].count("<math ") == pages["backprop.html"].count("</math>") > 100
  listed = (ROOT / "mkdocs.yml").read_text()
  for page in PAGES:
    assert f" {page}\n" in listed, "a page is missing from the navigation"
  assert pathlib.Path(site / "search" / "search_index.js").is_file()
