"""Confusion matrices: what is written are the counts, in text that can be read."""

import matplotlib
import numpy as np
import pytest
from drawing import make_population

from jaxdl.report import confusion_plots


@pytest.mark.parametrize(("num_classes", "num_arms"), [(2, 1), (2, 7), (4, 2), (5, 3), (10, 1)])
def test_cells_say_the_counts(num_classes, num_arms):
  population = make_population(
    num_seeds=3, num_arms=num_arms, num_classes=num_classes, diverged=[(0, 0, 2)]
  )
  figure = confusion_plots.confusion_matrices(population)
  pooled = population.confusion.sum(axis=0)
  for counts, ax in zip(pooled, figure.axes, strict=False):
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert len(cells) == num_classes**2
    for true, predicted in np.ndindex(counts.shape):
      expected = f"{counts[true, predicted]:,}"
      if num_classes <= 4 or true == predicted:
        expected += f"\n{100 * counts[true, predicted] / counts[true].sum():.1f}%"
      assert cells[predicted, true] == expected
    assert (ax.get_xlabel(), ax.yaxis_inverted()) == ("predicted", True)
    image = ax.images[0].get_array()
    np.testing.assert_allclose(image, counts / counts.sum(axis=1, keepdims=True))
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(
    population.class_names
  )
  assert figure.axes[0].get_ylabel() == "true"


def test_text_stands_out_from_its_cell():
  figure = confusion_plots.confusion_matrices(make_population(num_arms=1, num_classes=10))
  ax = figure.axes[0]
  for text in ax.texts:
    column, row = text.get_position()
    cell = ax.images[0].to_rgba(ax.images[0].get_array()[row, column])
    colors = np.array([cell[:3], matplotlib.colors.to_rgb(text.get_color())])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    if text.get_text() != "0":
      assert (light + 0.05) / (dark + 0.05) >= 3  # contrast as WCAG defines it


def test_threshold_is_stated_for_one_output_only():
  binary = make_population(thresholds=(0.5, 0.35))
  figure = confusion_plots.confusion_matrices(binary)
  assert [ax.get_title() for ax in figure.axes[:2]] == [
    "arm 0\nthreshold 0.5",
    "arm 1\nthreshold 0.35",
  ]
  softmax = make_population(loss="categorical_cross_entropy")
  assert confusion_plots.confusion_matrices(softmax).axes[0].get_title() == "arm 0"


def test_a_class_without_examples_has_no_rate():
  population = make_population(num_arms=1)
  population.confusion[:, :, 1] = 0
  ax = confusion_plots.confusion_matrices(population).axes[0]
  cells = {text.get_position(): text.get_text() for text in ax.texts}
  assert cells[0, 1] == cells[1, 1] == "0"
