"""Files that come all at once or not at all."""

import os
import pathlib
import shutil

import pytest

from jaxdl.errors import InputError
from jaxdl.store import files


def _stage(folder, content, **options):
  with files.staging(folder, **options) as stage:
    for name, text in content.items():
      (stage / name).parent.mkdir(parents=True, exist_ok=True)
      (stage / name).write_text(text)


def _content(folder):
  """Returns name -> text of all files, the manifest apart, and None of folders."""
  paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*")}
  paths.pop(files.MANIFEST, None)
  return {name: p.read_text() if p.is_file() else None for name, p in paths.items()}


def test_staged_files_come_all_at_once_or_not_at_all(tmp_path):
  _stage(tmp_path, {"old": "old", "kept": "kept", "figures/old.png": "x"})
  before = _content(tmp_path)

  def fail():
    with files.staging(tmp_path) as stage:
      (stage / "new").write_text("new")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert _content(tmp_path) == before
  (tmp_path / "mine").write_text("mine")
  _stage(tmp_path, {"new/a": "new", "kept": "newer"}, last=["kept"])
  assert _content(tmp_path) == {"new": None, "new/a": "new", "kept": "newer", "mine": "mine"}


def _write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


@pytest.mark.parametrize(
  ("place", "put"),
  [
    ("report", lambda path: _write(path, "mine")),
    ("report", lambda path: (path.unlink(), path.mkdir(), _write(path / "notes", "mine"))),
    ("report", lambda path: (path.unlink(), path.symlink_to("../theirs"))),
    ("figures/mine.png", lambda path: _write(path, "mine")),
    ("figures/more/mine.png", lambda path: _write(path, "mine")),
    ("figures/a.png", lambda path: _write(path, "mine")),
    ("other", lambda path: _write(path, "mine")),
    (files.MANIFEST, lambda path: _write(path, "mine")),
    (files.MANIFEST, lambda path: _write(path, '{"files": {"../theirs": "0"}}')),
  ],
)
def test_nothing_is_replaced_that_did_not_come_the_same_way(tmp_path, place, put):
  folder = tmp_path / "results"
  (tmp_path / "theirs").write_text("theirs")
  _stage(folder, {"report": "report", "figures/a.png": "a"})
  put(folder / place)
  before = _content(tmp_path)
  with pytest.raises(InputError, match=f"{place.split('/')[0]}.*' was made by no run"):
    _stage(folder, {"report": "new", "figures/b.png": "b", "other": "o"})
  assert _content(tmp_path) == before


def test_a_folder_of_the_same_name_is_not_replaced_the_first_time_either(tmp_path):
  _write(tmp_path / "figures" / "mine.png", "mine")
  with pytest.raises(InputError, match=r"mine\.png' was made by no run"):
    _stage(tmp_path, {"figures/a.png": "a"})
  assert _content(tmp_path) == {"figures": None, "figures/mine.png": "mine"}


def test_killed_at_any_moment_what_is_there_can_still_be_replaced(tmp_path, monkeypatch):
  """A process that ends before the n-th change of the folder, for every n."""
  new = {"report": "new", "config": "new", "figures/b.png": "b"}

  class Killed(BaseException):
    pass

  def killing(function, left):
    def call(*arguments, **options):
      if left[0] == 0:
        raise Killed
      left[0] -= 1
      return function(*arguments, **options)

    return call

  for when in range(100):
    folder = tmp_path / str(when)
    _stage(folder, {"report": "old", "config": "old", "figures/a.png": "a"}, last=["config"])
    with monkeypatch.context() as patch:
      left = [when]
      for owner, name in ((os, "replace"), (pathlib.Path, "unlink"), (pathlib.Path, "rmdir")):
        patch.setattr(owner, name, killing(getattr(owner, name), left))
      patch.setattr(shutil, "rmtree", lambda *_, **__: None)
      try:
        _stage(folder, new, last=["config"])
        done = True
      except Killed:
        done = False
    found = _content(folder)
    if found.get("config") is not None:  # it vouches for all others
      texts = {found["config"], found.get("report")}
      assert len(texts) == 1
    _stage(folder, new, last=["config"])
    assert _content(folder) == {**new, "figures": None}
    if done:
      break
  assert when > 5


def test_a_home_that_nobody_has_is_one_line():
  with pytest.raises(InputError, match="'~nobody-here/x' cannot be resolved"):
    files.expand_home("~nobody-here/x")
