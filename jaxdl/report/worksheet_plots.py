"""The picture of a worksheet: its computation graph."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from jaxdl.byhand.expressions import Derivative
from jaxdl.byhand.worksheet import show_value
from jaxdl.byhand.worksheet.checker import WRONG, CheckedClaim, CheckedWorksheet
from jaxdl.report import figures, graph_layout

# In inches: the height of a line of text, the margin around it, the width of the derivatives beside
# a node's givens, the gaps between columns and between nodes.
_LINE, _PAD, _BRANCH, _GAP_X, _GAP_Y = 0.17, 0.07, 0.78, 0.95, 0.16
# A larger graph is unreadable.
_MOST_BOXES, _MOST_EDGES = 300, 1000
# Of an array, many entries may be wrong in one place.
_MOST_MISTAKES = 3


# (node, name) for an edge, ("", name) for a box -> wrong claims.
_Wrong = Mapping[tuple[str, str], list[CheckedClaim]]


class _Box(NamedTuple):
  lines: list[str]  # the name with its value, then wrong claims
  leaves: list[tuple[str, str, list[str]]]  # given, derivative, wrong claims


@figures.styled
def computation_graph(checked: CheckedWorksheet) -> Figure:
  """Draws a worksheet's computation graph, values on the nodes, derivatives on the edges.

  An arrow leads to a node from each name in its equation and carries the derivative of that
  equation with respect to the name, others held fixed. Givens that only one node uses hang below
  it. Values are the right ones, before the first gradient step; of a large array, and of an edge
  between arrays, there is none. A wrong claim is written in orange where it belongs: at its node or
  given, at its edge, or, for any other derivative du/dv, at v.

  Returns:
    A figure as large as the graph, or, if the graph is too large to be drawn, one that says so.
  """
  sheet = checked.worksheet
  users = {
    name: [n for n in sheet.equations if (n, name) in checked.partials] for name in sheet.given
  }
  leaves = {name for name, nodes in users.items() if len(nodes) == 1}
  names = [name for name in users if len(users[name]) != 1] + list(sheet.equations)
  inputs = {name: [n for n in names if (name, n) in checked.partials] for name in names}
  if len(names) + len(leaves) > _MOST_BOXES or len(checked.partials) > _MOST_EDGES:
    return figures.message("The graph is too large to be drawn.")
  wrong = _wrong_claims(checked)
  boxes = {
    name: _Box(
      [_value_text(checked, name), *_wrong_text(wrong, name)],
      [
        (
          _value_text(checked, n),
          _slope_text(checked, name, n),
          [*_wrong_text(wrong, n), *_wrong_text(wrong, n, name)],
        )
        for n in sheet.given
        if n in leaves and users[n] == [name]
      ],
    )
    for name in names
  }
  sizes = {name: _box_size(box) for name, box in boxes.items()}
  on_edges = [text for node, name in wrong if node for text in _wrong_text(wrong, name, node)]
  widest = max((figures.text_width(text, figures.SMALL_TEXT_SIZE) for text in on_edges), default=0)
  layout = graph_layout.place(inputs, sizes, max(_GAP_X, min(2 * widest, 3.0)), _GAP_Y)
  figure, ax = _graph_axes(checked.title, layout)
  _draw_edges(ax, checked, layout, wrong)
  for name, box in boxes.items():
    _draw_box(ax, layout, name, box, name in sheet.given)
  return figures.finish(figure)


def _wrong_claims(checked: CheckedWorksheet) -> _Wrong:
  """Returns the wrong claims by place."""
  places: dict[tuple[str, str], list[CheckedClaim]] = {}
  for result in checked.claims:
    if result.status in WRONG:
      of = checked.worksheet.claims[result.number - 1].of
      if isinstance(of, Derivative):
        place = (of.of, of.by) if (of.of, of.by) in checked.partials else ("", of.by)
      else:
        place = ("", _drawn_name(checked, of.name))
      places.setdefault(place, []).append(result)
  return places


def _drawn_name(checked: CheckedWorksheet, name: str) -> str:
  """Returns where a claim of a name is drawn: that of m_w or v_w at w."""
  sheet = checked.worksheet
  if name in sheet.names:
    return name
  return next((given for given in sheet.given if name.endswith(f"_{given}")), name)


def _wrong_text(wrong: _Wrong, name: str, user: str = "") -> list[str]:
  """Returns the wrong claims at a name's box, or at its edge to a user."""
  claims = wrong.get((user, name), [])
  lines = [figures.plain(f"✗ {claim.of} = {claim.claimed}") for claim in claims]
  rest = len(lines) - _MOST_MISTAKES
  return lines if rest <= 1 else [*lines[:_MOST_MISTAKES], f"✗ {rest} more"]


def _value_text(checked: CheckedWorksheet, name: str) -> str:
  value = checked.values[name]
  shape = checked.worksheet.shapes[name]
  return f"{name} {shape}" if value.size > 4 else f"{name} = {show_value(value, 5)}"


def _slope_text(checked: CheckedWorksheet, node: str, name: str) -> str:
  """Returns the derivative on an edge; nothing if it is no number."""
  slope = checked.partials[node, name]
  return "" if slope is None else f"{slope + 0.0:.4g}"  # never -0


def _box_text(line: str) -> str:
  return figures.fit(line, 2.4, figures.SMALL_TEXT_SIZE, max_lines=1)


def _box_size(box: _Box) -> graph_layout.Size:
  width = max(figures.text_width(_box_text(line), figures.SMALL_TEXT_SIZE) for line in box.lines)
  below = 0.0
  for text, _, mistakes in box.leaves:
    lines = [text, *mistakes]
    inner = max(figures.text_width(_box_text(line), figures.SMALL_TEXT_SIZE) for line in lines)
    width = max(width, _BRANCH + inner + 0.1)
    below += _LINE * len(lines) + 0.5 * _PAD
  height = _LINE * len(box.lines) + 2 * _PAD
  return graph_layout.Size(width + 4 * _PAD, height / 2, height / 2 + below)


def _graph_axes(title: str, layout: graph_layout.Layout) -> tuple[Figure, Axes]:
  """Returns a figure with room for the graph, in inches, y downwards."""
  margin, head, foot = 0.2, 0.4, 0.6
  width = max(layout.width, 6.0) + 2 * margin
  height = layout.height + head + foot
  figure = Figure(figsize=(width, height))
  ax = figure.add_axes((0, 0, 1, 1))
  left = -(width - layout.width) / 2
  ax.set(xlim=(left, left + width), ylim=(height - head, -head))
  ax.set_axis_off()
  middle = left + width / 2
  ax.text(
    middle,
    -head / 2,
    figures.fit(title, width - 2 * margin, figures.BOLD_SIZE, max_lines=1),
    ha="center",
    va="center",
    fontweight="bold",
  )
  legend = (
    "In a box: the right value. On a line: the derivative of the equation at its head with respect "
    "to the name at its tail. Orange, ✗: a wrong claim."
  )
  ax.text(
    middle,
    layout.height + foot - 0.12,
    figures.fit(legend, width - 2 * margin, figures.SMALL_TEXT_SIZE, max_lines=3),
    ha="center",
    va="bottom",
    color=figures.GREY,
    fontsize=figures.SMALL_TEXT_SIZE,
  )
  return figure, ax


def _draw_box(ax: Axes, layout: graph_layout.Layout, name: str, box: _Box, is_given: bool) -> None:
  """Draws a node, and the givens below it like the branches of a tree."""
  left, width, y = layout.left[name], layout.widths[name], layout.y[name]
  is_wrong = len(box.lines) > 1
  height = _LINE * len(box.lines) + 2 * _PAD
  ax.add_patch(
    FancyBboxPatch(
      (left, y - height / 2),
      width,
      height,
      boxstyle=f"round,pad=0,rounding_size={0.12 if is_given else 0.03}",
      facecolor="0.95" if is_given else "white",
      edgecolor=figures.MISTAKE_COLOR if is_wrong else figures.GREY,
      linewidth=1.8 if is_wrong else 1.0,
      zorder=3,
    )
  )
  for index, line in enumerate(box.lines):
    _write(ax, left + width / 2, y - height / 2 + _PAD + _LINE * (index + 0.5), line, index > 0)
  trunk, at = left + 0.12, y + height / 2
  for text, slope, mistakes in box.leaves:
    row = at + 0.5 * _PAD + _LINE / 2
    color = figures.MISTAKE_COLOR if mistakes else figures.GREY
    ax.plot([trunk, trunk], [y + height / 2, row], color=figures.GREY, linewidth=0.8, zorder=2)
    ax.plot([trunk, trunk + _BRANCH - 0.1], [row, row], color=color, linewidth=0.8, zorder=2)
    _label(ax, trunk + (_BRANCH - 0.1) / 2, row, slope, wrong=False)
    for index, line in enumerate([text, *mistakes]):
      _write(ax, left + _BRANCH + 0.1, row + _LINE * index, line, index > 0, ha="left")
    at += _LINE * (1 + len(mistakes)) + 0.5 * _PAD


def _write(ax: Axes, x: float, y: float, text: str, wrong: bool, ha: str = "center") -> None:
  color = figures.MISTAKE_COLOR if wrong else "black"
  style = {"fontsize": figures.SMALL_TEXT_SIZE, "va": "center_baseline", "zorder": 4}
  ax.text(x, y, _box_text(text), ha=ha, color=color, **style)


def _label(ax: Axes, x: float, y: float, text: str, wrong: bool) -> None:
  ax.text(
    x,
    y,
    text,
    ha="center",
    va="center",
    fontsize=figures.SMALL_TEXT_SIZE - 1,
    color=figures.MISTAKE_COLOR if wrong else figures.CORRECT_COLOR,
    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    zorder=2.5,
  )


def _draw_edges(
  ax: Axes, checked: CheckedWorksheet, layout: graph_layout.Layout, wrong: _Wrong
) -> None:
  """Draws the arrows, then their derivatives where they overlap least."""
  ends = {edge: (points[-2], points[-1]) for edge, points in layout.routes.items()}
  taken: list[tuple[float, float, float, float]] = []
  for (name, node), points in layout.routes.items():
    mistakes = _wrong_text(wrong, name, node)
    color = figures.MISTAKE_COLOR if mistakes else "0.55"
    ax.plot(*zip(*points, strict=True), color=color, linewidth=0.8, zorder=1)
    arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", points[-1], points[-2], arrowprops=arrow, zorder=1)
    text = "\n".join([_slope_text(checked, node, name), *mistakes])
    x, y = _label_place(text, ends, (name, node), taken)
    _label(ax, x, y, text, wrong=bool(mistakes))


def _label_place(
  text: str,
  ends: Mapping[tuple[str, str], tuple[graph_layout.Point, graph_layout.Point]],
  edge: tuple[str, str],
  taken: list[tuple[float, float, float, float]],
) -> graph_layout.Point:
  """Returns where along its edge a label overlaps least, and adds the place to `taken`."""
  lines = text.split("\n")
  half_width = max(figures.text_width(line, figures.SMALL_TEXT_SIZE) for line in lines) / 2 + 0.02
  half_height = 0.07 * len(lines)
  (x0, y0), (x1, y1) = ends[edge]

  def rectangle(t):
    x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
    return x - half_width, y - half_height, x + half_width, y + half_height

  def cost(t):
    a = rectangle(t)
    labels = sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken)
    lines = sum(other != edge and _crosses(*ends[other], a) for other in ends)
    return 100 * labels + lines + abs(t - 0.45)

  best = min(np.linspace(0.2, 0.75, 23), key=cost)
  taken.append(rectangle(best))
  return (taken[-1][0] + taken[-1][2]) / 2, (taken[-1][1] + taken[-1][3]) / 2


def _crosses(
  start: graph_layout.Point,
  end: graph_layout.Point,
  rectangle: tuple[float, float, float, float],
) -> bool:
  """Returns whether a line from left to right crosses a rectangle."""
  (x0, y0), (x1, y1) = start, end
  low, high = max(x0, rectangle[0]), min(x1, rectangle[2])
  if low >= high:
    return False
  at = sorted(y0 + (x - x0) / (x1 - x0) * (y1 - y0) for x in (low, high))
  return at[0] < rectangle[3] and rectangle[1] < at[1]
