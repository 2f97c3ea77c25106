"""Places the nodes of a computation graph: columns from left to right, few crossings.

The layered drawing of Sugiyama, Tagawa and Toda (1981). A node's column is its longest path from
the inputs; an edge over several columns gets a place of its own in each of them; every column is
ordered by the mean place of its neighbours; then nodes move towards their neighbours as far as the
others in their column let them. Lengths are in any unit, x to the right, y downwards.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SWEEPS = 12

Point = tuple[float, float]
# A name, or (name, column): where the edges from a node cross a column.
Node = str | tuple[str, int]
_Link = tuple[Node, Node]
_Neighbours = dict[Node, list[Node]]


class Size(NamedTuple):
  """The room that a node takes: its width, and how far it reaches above and below its place."""

  width: float
  above: float
  below: float


class Layout(NamedTuple):
  """A graph with a place for everything.

  Attributes:
    left: node -> x of its column's left edge.
    widths: node -> width of its column.
    y: node -> place.
    routes: (from, to) -> points of a line from the right edge of one to the left edge of the other.
    width: of the whole.
    height: of the whole.
  """

  left: dict[Node, float]
  widths: dict[Node, float]
  y: dict[Node, float]
  routes: dict[tuple[str, str], list[Point]]
  width: float
  height: float


def place(
  inputs: Mapping[str, Sequence[str]], sizes: Mapping[str, Size], gap_x: float, gap_y: float
) -> Layout:
  """Places the nodes of an acyclic graph.

  Args:
    inputs: node -> nodes with an edge to it; each of these is an earlier key.
    sizes: node -> room that it takes.
    gap_x: between columns.
    gap_y: between nodes of a column.
  """
  column = _columns(inputs)
  links, chains = _split_long_edges(inputs, column)
  columns: list[list[Node]] = [[] for _ in range(max(column.values()) + 1)]
  for node in [*inputs, *(n for n in column if n not in inputs)]:
    columns[column[node]].append(node)
  _order(columns, links)
  room = {node: sizes[node] if isinstance(node, str) else Size(0, 0.06, 0.06) for node in column}
  y = _heights(columns, links, room, gap_y)
  left: dict[Node, float] = {}
  widths: dict[Node, float] = {}
  x = 0.0
  for nodes in columns:
    width = max(room[node].width for node in nodes)
    for node in nodes:
      left[node], widths[node] = x, width
    x += width + gap_x
  top = min(y[node] - room[node].above for node in column)
  bottom = max(y[node] + room[node].below for node in column)
  y = {node: place - top for node, place in y.items()}
  routes = {}
  for edge, chain in chains.items():
    points = [(left[chain[0]] + widths[chain[0]], y[chain[0]])]
    for node in chain[1:-1]:
      points += [(left[node], y[node]), (left[node] + widths[node], y[node])]
    routes[edge] = [*points, (left[chain[-1]], y[chain[-1]])]
  return Layout(left, widths, y, routes, x - gap_x, bottom - top)


def _columns(inputs: Mapping[str, Sequence[str]]) -> dict[Node, int]:
  """Returns the longest path from the left; a node without inputs moves next to its first use."""
  column: dict[Node, int] = {}
  for node, before in inputs.items():
    column[node] = 1 + max((column[inner] for inner in before), default=-1)
  users: dict[str, list[str]] = {node: [] for node in inputs}
  for node, before in inputs.items():
    for inner in before:
      users[inner].append(node)
  for node, before in inputs.items():
    if not before and users[node]:
      column[node] = min(column[user] for user in users[node]) - 1
  return column


def _split_long_edges(
  inputs: Mapping[str, Sequence[str]], column: dict[Node, int]
) -> tuple[list[_Link], dict[tuple[str, str], list[Node]]]:
  """Adds places in the columns that an edge crosses, shared by the edges from one node.

  Returns:
    Pairs of neighbours in adjacent columns, and for each edge the places that it leads through.
  """
  links: dict[_Link, None] = {}
  chains = {}
  for node, before in inputs.items():
    for inner in before:
      chain: list[Node] = [inner]
      for index in range(column[inner] + 1, column[node]):
        between = (inner, index)
        column[between] = index
        chain.append(between)
      chain.append(node)
      chains[inner, node] = chain
      links.update(dict.fromkeys(itertools.pairwise(chain)))
  return list(links), chains


def _neighbours(links: Sequence[_Link]) -> tuple[_Neighbours, _Neighbours]:
  before: _Neighbours = {}
  after: _Neighbours = {}
  for left, right in links:
    before.setdefault(right, []).append(left)
    after.setdefault(left, []).append(right)
  return before, after


def _order(columns: list[list[Node]], links: Sequence[_Link]) -> None:
  """Orders each column by the mean rank of the neighbours, from the left and right in turn."""
  before, after = _neighbours(links)
  best, fewest = None, None
  for sweep in range(_SWEEPS + 1):
    crossings = _num_crossings(columns, after)
    if fewest is None or crossings < fewest:
      best, fewest = [list(nodes) for nodes in columns], crossings
    near = before if sweep % 2 == 0 else after
    rank = {n: i / max(len(nodes) - 1, 1) for nodes in columns for i, n in enumerate(nodes)}
    for nodes in columns if sweep % 2 == 0 else columns[::-1]:
      mean = {n: _mean([rank[m] for m in near.get(n, ())], rank[n]) for n in nodes}
      nodes.sort(key=mean.__getitem__)  # stable: ties keep their order
      rank |= {n: i / max(len(nodes) - 1, 1) for i, n in enumerate(nodes)}
  columns[:] = best or columns


def _num_crossings(columns: list[list[Node]], after: _Neighbours) -> int:
  total = 0
  for nodes, right in itertools.pairwise(columns):
    rank = {node: i for i, node in enumerate(right)}
    ends = [sorted(rank[m] for m in after.get(node, ())) for node in nodes]
    for i, upper in enumerate(ends):
      for lower in ends[i + 1 :]:
        total += sum(a > b for a in upper for b in lower)
  return total


def _mean(values: list[float], default: float) -> float:
  return sum(values) / len(values) if values else default


def _heights(
  columns: list[list[Node]], links: Sequence[_Link], room: Mapping[Node, Size], gap: float
) -> dict[Node, float]:
  """Returns y of each node, near its neighbours, `gap` between those of a column."""
  before, after = _neighbours(links)
  y: dict[Node, float] = {}
  for nodes in columns:
    y |= _spread(nodes, dict.fromkeys(nodes, 0.0), room, gap)
  for sweep in range(_SWEEPS):
    near = before if sweep % 2 == 0 else after
    for nodes in columns if sweep % 2 == 0 else columns[::-1]:
      wanted = {n: _mean([y[m] for m in near.get(n, ())], y[n]) for n in nodes}
      y |= _spread(nodes, wanted, room, gap)
  return y


def _spread(
  nodes: list[Node], wanted: Mapping[Node, float], room: Mapping[Node, Size], gap: float
) -> dict[Node, float]:
  """Returns places that keep order and gaps: the mean of pushing down and pushing up."""
  down, edge = {}, None
  for node in nodes:
    down[node] = wanted[node] if edge is None else max(wanted[node], edge + room[node].above)
    edge = down[node] + room[node].below + gap
  up, edge = {}, None
  for node in reversed(nodes):
    up[node] = wanted[node] if edge is None else min(wanted[node], edge - room[node].below)
    edge = up[node] - room[node].above - gap
  return {node: (down[node] + up[node]) / 2 for node in nodes}
