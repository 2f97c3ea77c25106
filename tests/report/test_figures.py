"""What all pictures share: text is shown as it is and where it fits; files are written whole."""

import os

import matplotlib
import pytest
from drawing import HOSTILE, make_population
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot

from jaxdl.report import figures, plots


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("$\\frac{1}{2}$", "$\\frac{1}{2}$"),
    ("tab\there", "tab here"),
    ("\x1b[0m", "\\x1b[0m"),
    ("中", "\\u4e2d"),
    ("_x", "_x"),
    (" \n", "(no name)"),
  ],
)
def test_plain_text(text, shown):
  assert figures.plain(text) == shown


@given(st.one_of(st.text(max_size=60), st.sampled_from(HOSTILE)), st.integers(1, 3))
def test_text_fits(text, max_lines):
  lines = figures.fit(text, 1.5, figures.TEXT_SIZE, max_lines).split("\n")
  assert len(lines) <= max_lines
  assert all(figures.text_width(line, figures.TEXT_SIZE) <= 1.5 for line in lines)
  if "…" not in "".join(lines):
    assert "".join(lines).replace(" ", "") == figures.plain(text).replace(" ", "")


def test_long_text_keeps_its_ends():
  fitted = figures.fit(f"start {'x' * 5000} end", 2, figures.TEXT_SIZE, max_lines=2)
  assert fitted.startswith("start")
  assert "…" in fitted
  assert fitted.endswith("end")


def test_280_arms_differ():
  assert len({figures.arm_style(index)[:3] for index in range(280)}) == 280


def test_a_message_is_a_figure():
  with matplotlib.rc_context({"font.size": 40}):
    figure = figures.message("Nothing.")
  assert [text.get_text() for text in figure.texts] == ["Nothing."]
  assert figure.texts[0].get_fontsize() == figures.TEXT_SIZE


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  figure = plots.metric_distribution(make_population())
  png, _ = figures.save(figure, tmp_path / "figure")
  before = png.read_bytes()

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(OSError, match="disk full"):
    figures.save(figure, tmp_path / "figure")
  assert png.read_bytes() == before
  assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


def test_figures_are_unknown_to_pyplot():
  plots.metric_distribution(make_population())
  assert pyplot.get_fignums() == []
