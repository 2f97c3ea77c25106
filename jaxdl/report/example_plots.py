"""Pictures of examples that are images: the worst mistakes, and what augmentation makes."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxdl.errors import InputError, unknown_name
from jaxdl.population.results import Population
from jaxdl.report import figures
from jaxdl.report.picture_data import Predictions, arms_with_results, predict


@figures.styled
def worst_mistakes(
  population: Population, images: np.ndarray, arm: str | None = None, num_images: int = 24
) -> Figure:
  """Shows the worst classified test images.

  Mistakes come first, then correct images if there is room. Both are ordered by the probability of
  the true class, lowest first; ties keep the order of the test set. Probabilities are means over
  the seeds that did not diverge. The prediction is the class with the largest probability or, with
  one output, class 1 if its probability is above the arm's threshold. For several arms, both
  probabilities and thresholds are averaged.

  Args:
    population: the trained members, tested on `images`.
    images: the test images `[N, H, W, D]` uint8, D = 1 (grey) or 3 (RGB).
    arm: the arm that predicts; None averages all arms.
    num_images: maximum number of images to show.

  Returns:
    A figure with a grid of images. Mistakes have a thick orange frame and a cross, correct images a
    thin blue frame and a tick.

  Raises:
    InputError: there is no such arm, or `num_images` is not positive.
    ValueError: the number of images is not that of the test labels, or they are neither grey nor
      RGB.
  """
  if arm is not None and arm not in population.arms:
    raise unknown_name("arm", arm, population.arms)
  if num_images < 1:
    raise InputError(f"num_images must be at least 1, not {num_images}")
  labels = population.test_targets
  if images.ndim != 4 or len(images) != len(labels) or images.shape[-1] not in (1, 3):
    raise ValueError(f"images must be [{len(labels)}, H, W, 1 or 3], not {images.shape}")
  names = [name for name in arms_with_results(population) if arm in (None, name)]
  if not names:
    return figures.message("Every seed diverged: there are no predictions.")
  predictions = predict(population, names)
  order = predictions.worst_first[:num_images]
  figure, axes = _image_grid(len(order), images.shape[1] / images.shape[2])
  for ax, index in zip(axes, order, strict=True):
    image = images[index, ..., 0] if images.shape[-1] == 1 else images[index]
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _describe(ax, population.class_names, labels[index], predictions, index)
  width, bold = figure.get_figwidth() - 0.4, figures.BOLD_SIZE
  who = f"mean of {len(names)} arms"
  if len(names) == 1:
    who = figures.fit(names[0], width, bold, max_lines=1)
  title = (
    f"{who}: {(~predictions.correct).sum():,} mistakes in {len(labels):,} test images, worst first"
  )
  figure.suptitle(figures.fit(title, width, bold, max_lines=3))
  return figures.finish(figure)


def _image_grid(num_images: int, aspect: float) -> tuple[Figure, list[Axes]]:
  """Returns a figure with one panel per image; `aspect` is an image's height over its width."""
  num_columns = min(6, num_images)
  num_rows = math.ceil(num_images / num_columns)
  width = max(num_columns * figures.MAX_WIDTH / 6, 4.0)
  height = num_rows * (1.3 * min(aspect, 2) + 0.55) + 0.4
  figure = Figure(figsize=(width, height), layout="constrained")
  return figure, figures.grid(figure, num_images, num_columns)


def _describe(
  ax: Axes, class_names: tuple[str, ...], label: int, predictions: Predictions, index: int
) -> None:
  """Titles and frames the panel of an image according to its prediction."""
  predicted = predictions.predicted[index]
  mistake = not predictions.correct[index]
  true_name, predicted_name = (
    figures.fit(class_names[i], 0.85, figures.SMALL_TEXT_SIZE, max_lines=1)
    for i in (label, predicted)
  )
  probability = predictions.predicted_probability[index]
  p = "p > 0.99" if probability >= 0.995 else f"p = {probability:.2f}"
  text = f"{'✗' if mistake else '✓'} true {true_name}, predicted {predicted_name}"
  text = figures.fit(text, 1.45, figures.SMALL_TEXT_SIZE, max_lines=4)
  ax.set_title(f"{text}\n({p})", fontsize=figures.SMALL_TEXT_SIZE)
  color = figures.MISTAKE_COLOR if mistake else figures.CORRECT_COLOR
  ax.set(xticks=[], yticks=[])
  ax.spines[:].set_visible(True)
  ax.spines[:].set(color=color, linewidth=2.5 if mistake else 1.0)


@figures.styled
def augmented_images(images: np.ndarray, augmented: np.ndarray) -> Figure:
  """Shows one image per row, followed by augmented versions of it.

  Args:
    images: K originals, `[K, H, W, D]` uint8, D = 1 (grey) or 3 (RGB).
    augmented: V augmented versions of each, `[K, V, H, W, D]` float in [0, 1].

  Raises:
    ValueError: the shapes do not match, or the images are neither grey nor RGB.
  """
  images, augmented = np.asarray(images), np.asarray(augmented)
  fits = images.ndim == 4 and augmented.ndim == 5 and images.shape[-1] in (1, 3)
  if not fits or augmented.shape[:1] + augmented.shape[2:] != images.shape:
    raise ValueError(
      "images must be [K, H, W, 1 or 3] and augmented [K, V, H, W, D], "
      f"not {images.shape} and {augmented.shape}"
    )
  num_images, num_versions = augmented.shape[:2]
  if not num_images:
    return figures.message("There are no images.")
  # In inches; a gap separates the originals from the augmented images.
  pad, gap, between, head = 0.1, 0.2, 0.06, 0.3
  room = figures.MAX_WIDTH - 2 * pad - gap
  width = min(1.1, room / (num_versions + 1) - between)
  height = width * min(images.shape[1] / images.shape[2], 3)
  step_x, step_y = width + between, height + between
  full = 2 * pad + gap + (num_versions + 1) * step_x
  # The panels fit the maximum width, except for rounding.
  size = (min(full, figures.MAX_WIDTH), head + pad + num_images * step_y)
  figure = Figure(figsize=size)
  for row in range(num_images):
    shown = [images[row] / 255, *np.clip(augmented[row], 0, 1)]
    for column, image in enumerate(shown):
      left = pad + column * step_x + (gap if column else 0)
      bottom = size[1] - head - row * step_y - height
      place = (left / size[0], bottom / size[1], width / size[0], height / size[1])
      ax = figure.add_axes(place, xticks=[], yticks=[])
      image = image[..., 0] if image.shape[-1] == 1 else image
      ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
      ax.spines[:].set_visible(False)
  top = 1 - 0.5 * head / size[1]
  figure.text(pad / size[0], top, "original", va="center")
  if num_versions:
    figure.text((pad + step_x + gap) / size[0], top, "augmented", va="center")
  return figures.finish(figure)
