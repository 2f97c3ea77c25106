"""Axes of pictures whose values decide about their scale."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from jaxdl.report import figures
from jaxdl.report.picture_data import whole_number_limits

# Instead of a picture without a value.
NOTHING = "There is no finite value to draw."


def finite(parts: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the finite values of all arrays as one flat array."""
  values = np.concatenate([np.ravel(np.asarray(part, float)) for part in parts] or [[]])
  return values[np.isfinite(values)]


def set_whole_numbers(ax: Axes, first: int, last: int) -> None:
  """Sets up an x axis for whole numbers from `first` to `last`."""
  ax.set_xlim(*whole_number_limits(first, last))
  few = last - first <= 6
  ax.xaxis.set_major_locator(
    ticker.FixedLocator(range(first, last + 1))
    if few
    else ticker.MaxNLocator("auto", integer=True, min_n_ticks=1)
  )


def set_scale(
  axis: Axis, parts: Sequence[np.ndarray], log: bool = True, least_factor: float = 3
) -> tuple[float, float]:
  """Sets the scale and limits of an axis so that it holds all finite values; returns the limits.

  The axis is logarithmic if `log` is set and the positive values span more than `least_factor`. An
  x axis is linear unless all of its values are positive.
  """
  values = finite(parts)
  low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
  is_x = axis.axis_name == "x"
  least = values[values > 0].min(initial=math.inf)
  if log and high > least_factor * least and not (is_x and low <= 0):
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    pad = (high / least) ** 0.04
    limits = (least / pad, high * pad)
    axis.set_major_locator(ticker.FixedLocator(_log_ticks(*limits)))
    figures.write_plain_ticks(axis)
  else:
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.05
    limits = (low - pad, high + pad)
  axis.axes.set(**{f"{axis.axis_name}lim": limits})
  return limits


def _log_ticks(low: float, high: float) -> list[float]:
  """Returns at most about six ticks for a logarithmic axis, which the layout cannot change."""
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  decades = math.log10(high / low)
  step = max(1, math.ceil(decades / 6))
  digits = (1, 2, 5) if decades < 2.2 else (1,)
  powers = [power for power in range(first, last + 1) if power % step == 0]
  ticks = [digit * 10.0**power for power in powers for digit in digits]
  return [tick for tick in ticks if low <= tick <= high]
