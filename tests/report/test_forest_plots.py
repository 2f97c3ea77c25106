"""Claims and differences, in units of their margins."""

import numpy as np
import pytest
from drawing import legend, make_claims, marks

from jaxdl.report import forest_plots


def test_claims_are_in_units_of_their_margin():
  rows = make_claims()
  figure = forest_plots.forest(rows)
  ax = figure.axes[0]
  for row, marker in zip(rows, "oDs", strict=True):
    ((effect, _),) = marks(ax, marker)
    assert effect == pytest.approx(row.effect / row.margin)
  bars = [np.array(bar.get_xdata()) for bar in ax.lines if list(bar.get_xdata()) != [0, 0]]
  bars = [bar for bar in bars if len(bar) == 2]
  np.testing.assert_allclose(bars, [[r.low / r.margin, r.high / r.margin] for r in rows])
  assert ax.get_xscale() == "symlog"
  low, high = ax.get_xlim()
  assert low == -high
  assert legend(figure) == ["holds", "does not hold", "undecided", "within the margin"]


def test_claims_without_a_number_have_only_their_text():
  row = make_claims(1)[0]
  for change in ({"effect": np.nan}, {"effect": np.inf}, {"margin": 0}, {"margin": np.nan}):
    figure = forest_plots.forest([row._replace(**change)])
    ax = figure.axes[0]
    assert marks(ax, "o") == []
    assert [text.get_text() for text in ax.texts] == ["x"]
  ax = forest_plots.forest([row._replace(low=-np.inf, high=1e300)]).axes[0]
  assert len(marks(ax, "o")) == 1
  assert np.isfinite(ax.get_xlim()).all()


def test_a_verdict_must_be_known():
  with pytest.raises(ValueError, match="maybe"):
    forest_plots.forest([make_claims(1)[0]._replace(verdict="maybe")])
