"""The picture of a worksheet: complete, apart from each other, and as plain text."""

import xml.etree.ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worksheet_examples import MAZUR, MAZUR_GIVEN, SHEETS, SOFTMAX, SOFTMAX_GIVEN, make_sheet

from jaxdl.byhand import worksheet
from jaxdl.report import figures, graph_layout, worksheet_plots


def test_picture_of_the_network(tmp_path):
  checked = worksheet.check(SHEETS / "problem_1a.toml")
  paths = figures.save(worksheet_plots.computation_graph(checked), tmp_path / "graph")
  again = figures.save(worksheet_plots.computation_graph(checked), tmp_path / "again")
  assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
  figure = worksheet_plots.computation_graph(checked)
  texts = [text for ax in figure.axes for text in ax.texts if text.get_text()]
  shown = [text.get_text() for text in texts]
  for text in ("z1 = 2", "a1 = 0.8808", "0.105", "x2 = 1", "✗ w2' = 1.0000005", "-0.02552"):
    assert text in shown
  boxes = [text.get_window_extent() for text in texts]
  for i, box in enumerate(boxes):
    assert figure.bbox.contains(*box.min)
    assert figure.bbox.contains(*box.max)
    for j in range(i):
      assert not box.overlaps(boxes[j]), (shown[i], shown[j])


@pytest.mark.parametrize("sheet", [(SOFTMAX, SOFTMAX_GIVEN), (MAZUR, MAZUR_GIVEN)])
def test_every_derivative_is_in_the_picture(sheet):
  equations, given = sheet
  checked = worksheet.check(make_sheet(equations, [("h1", "0")], given))
  shown = [text.get_text() for text in worksheet_plots.computation_graph(checked).axes[0].texts]
  for slope in checked.partials.values():
    shown.remove(f"{slope + 0.0:.4g}")


def test_arrays_have_values_or_shapes_and_few_of_their_wrong_entries():
  equations = {"z": "W @ x", "L": "sum(z**2)"}
  claims = [
    ("W'", "[[9, 9, 9, 9, 9], [9, 9, 9, 9, 9]]"),
    ("m_W'", "[[9, 9, 9, 9, 9], [1, 1, 1, 1, 1]]"),
  ]
  given = {"W": "[[1, 2, 3, 4, 5], [0, 0, 0, 0, 1]]", "x": "[1, 0, 0, 0, 2]"}
  head = 'loss = "L"\nlearning_rate = 1\noptimizer = "adam"\nparameters = ["W"]'
  checked = worksheet.check(make_sheet(equations, claims, given, head))
  shown = [text.get_text() for text in worksheet_plots.computation_graph(checked).axes[0].texts]
  assert {"W (2, 5)", "z = [11, 2]", "L = 125", "✗ W'[0,0] = 9", "✗ 17 more"} <= set(shown)


def test_hostile_titles_and_names_are_text(tmp_path):
  head = 'title = "$x^2$ <script>alert(1)</script> \\u001b[31m |\\n# x"'
  checked = worksheet.check(make_sheet({'"αβ_"': "中 + 1"}, [("αβ_", "5")], {'"中"': 1}, head))
  _, svg = figures.save(worksheet_plots.computation_graph(checked), tmp_path / "graph")
  root = xml.etree.ElementTree.parse(svg).getroot()
  assert not root.findall(".//{*}script")


def test_a_graph_too_large_is_not_drawn():
  equations = {f"z{i}": f"z{i - 1} + x" if i else "x" for i in range(400)}
  figure = worksheet_plots.computation_graph(
    worksheet.check(make_sheet(equations, [("z399", "1")], {"x": 1}))
  )
  assert "too large" in figure.texts[0].get_text()


@given(st.lists(st.sets(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_layout_keeps_everything_apart(edges):
  """Edges lead to the right; no two nodes share room."""
  inputs = {str(i): [str(j) for j in sorted(before) if j < i] for i, before in enumerate(edges)}
  sizes = {name: graph_layout.Size(1.0, 0.2, 0.2 + 0.1 * int(name)) for name in inputs}
  layout = graph_layout.place(inputs, sizes, 0.5, 0.1)
  for (start, end), points in layout.routes.items():
    assert points[0] == (layout.left[start] + 1.0, layout.y[start])
    assert points[-1] == (layout.left[end], layout.y[end])
    assert np.all(np.diff([x for x, _ in points]) > 0)
  names = list(inputs)
  for i, a in enumerate(names):
    assert layout.y[a] - sizes[a].above >= -1e-9
    assert layout.y[a] + sizes[a].below <= layout.height + 1e-9
    for b in names[:i]:
      if layout.left[a] == layout.left[b]:
        upper, lower = sorted((a, b), key=lambda name: layout.y[name])
        gap = layout.y[lower] - sizes[lower].above - layout.y[upper] - sizes[upper].below
        assert gap >= 0.1 - 1e-9
