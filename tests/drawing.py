"""Made-up populations to draw, and what holds of every picture."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxdl.arm import Arm
from jaxdl.optim import metrics
from jaxdl.population.results import Population
from jaxdl.report.forest_plots import ForestRow

RATES = np.geomspace(1e-4, 1, 5)
LABELS = {"x_label": "learning rate", "y_label": "test accuracy (%)"}
NAMES = ("cost $5 to $6", "_a_b", "$\\frac{1}{2}$", "d", "e", "f", "g", "h", "i", "j", "k", "l")
HOSTILE = (
  "$\\frac{",
  "$x^2$ & <script>alert('x')</script>",
  "two\nlines\tand\x00\x1b[31m controls \u202e reversed",
  "--> ]]> <!-- &amp;",
  "_hidden",
  "中文 \U0001f600 \ud800",
  "W" * 3000,
  "",
)


def make_population(
  num_seeds=4,
  num_arms=2,
  num_classes=2,
  num_epochs=6,
  num_examples=60,
  arm_names=None,
  class_names=None,
  diverged=(),
  stopped=(),
  validation=True,
  thresholds=None,
  loss=None,
):
  """A population of made-up results, with members (seed, arm, epoch) that diverged or stopped."""
  rng = np.random.default_rng(0)
  shape = (num_seeds, num_arms)
  status, epochs = np.full(shape, "finished", "U16"), np.full(shape, num_epochs)
  for name, members in (("diverged", diverged), ("early_stopped", stopped)):
    for seed, arm, epoch in members:
      status[seed, arm], epochs[seed, arm] = name, epoch
  lost = status == "diverged"

  steps = np.arange(1, num_epochs + 1)
  curves = {"learning_rate": np.full((*shape, num_epochs), 0.001)}
  for split in ("train", "val"):
    loss_curve = np.exp(-0.3 * steps + 0.2 * rng.standard_normal((*shape, num_epochs)))
    curves[f"{split}_loss"], curves[f"{split}_accuracy"] = loss_curve, 1 - 0.5 * loss_curve
    if split == "val" and not validation:
      loss_curve[:], curves["val_accuracy"][:] = np.nan, np.nan
  for name, curve in curves.items():
    curve[steps > epochs[..., None]] = np.nan
    if name.endswith("loss"):
      curve[(steps == epochs[..., None]) & lost[..., None]] = np.nan

  labels = np.arange(num_examples) % num_classes
  logits = rng.standard_normal((*shape, num_examples, num_classes))
  logits[..., np.arange(num_examples), labels] += 1
  probabilities = metrics.probabilities(logits)  # [S, A, N, C]
  confusion = metrics.confusion_matrix(labels, logits.argmax(axis=-1), num_classes)
  confusion[lost] = 0
  probabilities[lost] = 0
  calibration = metrics.calibration_counts(probabilities, labels) * ~lost[..., None, None]
  kept = np.maximum((~lost).sum(axis=0), 1)[:, None, None]
  values = {"test_accuracy": metrics.accuracy(confusion), "test_loss": rng.random(shape)}
  values["f1"] = metrics.precision_recall_f1(confusion)[2]
  arm_names = arm_names or [f"arm {index}" for index in range(num_arms)]
  loss = loss or ("binary_cross_entropy" if num_classes == 2 else "categorical_cross_entropy")
  return Population(
    seeds=tuple(range(num_seeds)),
    arms={
      name: Arm(loss=loss, threshold=thresholds[i] if thresholds else 0.5)
      for i, name in enumerate(arm_names)
    },
    class_names=tuple(class_names or map(str, range(num_classes))),
    test_targets=labels,
    status=status,
    epochs=epochs,
    best_epoch=epochs,
    num_params=np.ones(shape, int),
    curves=curves,
    calibration=calibration,
    metrics={name: np.where(lost, np.nan, value) for name, value in values.items()},
    confusion=confusion,
    confusion_at_half=None,
    mean_probabilities=probabilities.sum(axis=0) / kept,
    train_seconds=np.ones(shape),
    compile_seconds=1.0,
    chunks=(),
  )


def make_lines(num_lines=2, num_seeds=4, x=RATES, diverged=()):
  """Name -> (x, values `[n, S]`), NaN at (line, x, seed) that diverged."""
  rng = np.random.default_rng(0)
  values = 0.5 + 0.4 * rng.random((num_lines, len(x), num_seeds))
  for place in diverged:
    values[place] = np.nan
  return {name: (x, v) for name, v in zip(NAMES[:num_lines], values, strict=True)}


def make_profiles(num_seeds=3, rows=("2 layers", "9 layers"), columns=("tanh", "relu"), lines=2):
  rng = np.random.default_rng(0)
  return {
    (row, column): {name: np.exp(rng.normal(0, 3, (num_seeds, 4))) for name in NAMES[:lines]}
    for row in rows
    for column in columns
  }


def make_claims(num_rows=3):
  verdicts = ("holds", "does not hold", "undecided")
  return [
    ForestRow(f"claim {i}", 0.02 * i - 0.03, 0.02 * i - 0.04, 0.02 * i, 0.01, verdicts[i % 3], "x")
    for i in range(num_rows)
  ]


def make_images(population, height=4, width=4, channels=1):
  """Random images in the place of its test examples."""
  shape = (len(population.test_targets), height, width, channels)
  return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def drawn_texts(figure):
  """Everything that is written when the figure is drawn, with its box in pixels."""
  found = []

  def record(text, renderer):
    if text.get_visible() and text.get_text().strip():
      found.append((text.get_text(), text.get_window_extent(renderer)))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(matplotlib.text.Text, "draw", record)
    figure.draw(FigureCanvasAgg(figure).get_renderer())
  return found


def assert_nothing_clipped(figure):
  """All text stands within the figure, and no panel reaches into another."""
  slack = 0.5  # of a pixel, for antialiasing
  for text, box in drawn_texts(figure):
    assert box.x0 >= -slack, text
    assert box.y0 >= -slack, text
    assert box.x1 <= figure.bbox.x1 + slack, text
    assert box.y1 <= figure.bbox.y1 + slack, text
  renderer = FigureCanvasAgg(figure).get_renderer()
  boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
  for a, b in itertools.combinations(boxes, 2):
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    assert min(width, height) <= 1, "panels overlap"


# --- What was drawn ---


def panel(figure, title):
  """The axes with a title, apart from what it has in brackets."""
  return next(ax for ax in figure.axes if ax.get_title().partition(" (")[0] == title)


def line(ax, name):
  """The line of an arm or another name."""
  (found,) = (line for line in ax.lines if line.get_label() == name)
  return found


def marks(ax, marker):
  """The points that are drawn alone with a marker."""
  return [
    (line.get_xdata()[0], line.get_ydata()[0])
    for line in ax.lines
    if line.get_marker() == marker and len(line.get_xdata()) == 1
  ]


def legend(figure):
  """The texts of the legend."""
  return [text.get_text() for text in figure.legends[0].get_texts()]


def message(figure):
  """What a figure without panels says."""
  assert not figure.axes
  return figure.texts[0].get_text()
