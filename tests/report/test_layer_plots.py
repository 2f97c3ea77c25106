"""Pictures of layers: lines are means, bands the range of the seeds."""

import numpy as np
import pytest
import scipy.stats
from drawing import NAMES, line, make_profiles

from jaxdl.report import layer_plots


@pytest.mark.parametrize("log_y", [True, False])
def test_layer_profiles_are_means_with_ranges(log_y):
  profiles = make_profiles()
  profiles["2 layers", "tanh"]["_a_b"] = np.zeros((3, 2))
  figure = layer_plots.layer_profile(profiles, y_label="norm", log_y=log_y)
  assert [ax.get_title() for ax in figure.axes] == ["tanh", "relu", "", ""]
  assert [ax.get_ylabel() for ax in figure.axes] == ["2 layers\nnorm", "", "9 layers\nnorm", ""]
  for ax, (place, lines) in zip(figure.axes, profiles.items(), strict=True):
    for band, (name, values) in zip(ax.collections, lines.items(), strict=True):
      expected = scipy.stats.gmean(np.maximum(values, 1e-12)) if log_y else values.mean(axis=0)
      assert list(line(ax, name).get_xdata()) == list(range(1, values.shape[1] + 1))
      np.testing.assert_allclose(line(ax, name).get_ydata(), expected, err_msg=str(place))
      heights = band.get_paths()[0].vertices[:, 1]
      assert heights.max() == values.max() or not values.any()
    low, high = ax.get_ylim()
    assert low < 1e-12
    assert high > max(v.max() for lines in profiles.values() for v in lines.values())


def test_values_that_are_not_finite_are_counted():
  profiles = make_profiles(rows=("9 layers",))
  profiles["9 layers", "relu"]["_a_b"][0, :2] = np.inf
  profiles["9 layers", "relu"][NAMES[0]][:] = np.nan
  figure = layer_plots.layer_profile(profiles, y_label="norm")
  assert [[t.get_text() for t in ax.texts] for ax in figure.axes] == [
    [],
    ["not finite: 2 of 2 lines"],
  ]
  values = profiles["9 layers", "relu"]["_a_b"]
  assert line(figure.axes[1], "_a_b").get_ydata()[0] == pytest.approx(
    scipy.stats.gmean(values[1:, 0])
  )


def test_training_of_the_first_and_the_last_layer():
  values = np.random.default_rng(0).random((3, 5, 7))
  figure = layer_plots.layer_training({("7 layers", "relu"): values}, y_label="norm")
  for name, layer in (("first layer", 0), ("last layer", 6)):
    drawn = line(figure.axes[0], name)
    np.testing.assert_array_equal(drawn.get_xdata(), range(5))
    np.testing.assert_allclose(drawn.get_ydata(), scipy.stats.gmean(values[:, :, layer]))
