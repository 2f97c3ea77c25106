"""Test examples in the HTML report: behind the cells of confusion matrices, and galleries.

Images come in one picture, the sprite, each as a tile of it. Of other examples the first numbers
are shown.
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import one_line
from jaxdl.population.results import Population
from jaxdl.report.picture_data import arms_with_results, is_image, predict

# In pixels: a larger image is shrunk to the first, a smaller one shown at about the second.
_MAX_TILE, _SHOWN_TILE = 48, 56
# Of a picture that is a file, in pixels.
_MAX_WIDTH = 1500
# Pixels of the sprite, for grey and coloured images.
_MAX_PIXELS = {1: 800_000, 3: 500_000}
_MAX_BEHIND_CELL, _MAX_BEHIND_CELLS = 12, 1500
_NUM_WORST, _NUM_RANDOM = 24, 24
_NUM_VALUES = 8


class Example(NamedTuple):
  """One test example and what is predicted of it, by the mean over seeds."""

  number: int  # its index in the test set
  true: str
  predicted: str
  probability: str  # of the predicted class
  is_mistake: bool


class Sprite(NamedTuple):
  """A picture of tiles; lengths are pixels of the page."""

  url: str
  tile: tuple[int, int]  # width, height
  columns: int
  rows: int
  places: dict[int, int]  # index of an example -> tile, row by row


class Examples(NamedTuple):
  """The examples that the report shows."""

  worst: list[Example]
  some: list[Example]  # chosen at random
  num_mistakes: int
  cells: dict[str, list[tuple[int, float]]]  # "arm,true,predicted" -> (index, probability)
  sprite: Sprite | None
  texts: dict[int, str]  # index -> what is shown of an example that is no image


def collect(population: Population, inputs: np.ndarray, arms: Sequence[int]) -> Examples:
  """Returns the examples to show of a population whose targets are one class per example.

  A cell of a confusion matrix gets those examples of its true class for which the mean probability
  of its predicted class, over the seeds of the arm, is highest.

  Args:
    population: the trained members.
    inputs: of the test examples, `[N, ...]`.
    arms: the indices of the arms whose matrices are shown.
  """
  names = arms_with_results(population)
  if not names:
    return Examples([], [], 0, {}, None, {})
  predicted = predict(population, names)
  wrong = ~predicted.correct  # [N]
  worst = predicted.worst_first[: min(_NUM_WORST, int(wrong.sum()))]
  # The same examples in every report of a dataset.
  drawn = np.random.default_rng(0).permutation(len(wrong))[:_NUM_RANDOM]
  room = _MAX_BEHIND_CELLS
  if is_image(inputs):
    room = min(room, _num_tiles(inputs.shape[1:]) - _NUM_WORST - _NUM_RANDOM)
  kept = [arm for arm in arms if list(population.arms)[arm] in names]
  cells = _behind_cells(population, kept, room)
  shown = dict.fromkeys([*worst.tolist(), *drawn.tolist()])
  shown |= dict.fromkeys(index for of_cell in cells.values() for index, _ in of_cell)
  sprite, texts = None, {}
  if is_image(inputs):
    sprite = make_sprite(inputs, list(shown))
  else:
    texts = {index: _describe(inputs[index]) for index in shown}

  def example(index: int) -> Example:
    true, answer = (
      one_line(population.class_names[int(label)])
      for label in (population.test_targets[index], predicted.predicted[index])
    )
    probability = f"{predicted.predicted_probability[index]:.2f}"
    return Example(int(index), true, answer, probability, bool(wrong[index]))

  some = [example(i) for i in drawn]
  return Examples([*map(example, worst)], some, int(wrong.sum()), cells, sprite, texts)


def _behind_cells(
  population: Population, arms: Sequence[int], room: int
) -> dict[str, list[tuple[int, float]]]:
  """Returns the examples of every cell with a count; of the largest mistakes, if not all fit."""
  counts = population.confusion.sum(axis=0)  # [A, C, C]
  filled = [(arm, *cell) for arm in arms for cell in np.argwhere(counts[arm]).tolist()]
  filled.sort(key=lambda cell: (cell[1] == cell[2], -counts[cell]))
  most = int(np.clip(room // max(1, len(filled)), 1, _MAX_BEHIND_CELL))
  of_class = [np.flatnonzero(population.test_targets == label) for label in range(counts.shape[1])]
  cells = {}
  for arm, true, answer in filled[:room]:
    probabilities = population.mean_probabilities[arm, of_class[true], answer]
    best = np.argsort(-probabilities, kind="stable")[:most]
    cells[f"{arm},{true},{answer}"] = [
      (int(of_class[true][i]), round(float(probabilities[i]), 3)) for i in best
    ]
  return cells


def _tile(height: int, width: int) -> tuple[int, int]:
  """Returns height and width of an image in the sprite."""
  shrink = min(1.0, _MAX_TILE / max(height, width))
  return max(1, round(shrink * height)), max(1, round(shrink * width))


def _num_tiles(shape: tuple[int, ...]) -> int:
  """Returns how many images of a shape `(H, W, D)` a sprite has room for."""
  height, width = _tile(*shape[:2])
  return _MAX_PIXELS[shape[2]] // (height * width)


def make_sprite(images: np.ndarray, chosen: Sequence[int]) -> Sprite:
  """Returns a picture with the chosen ones of `images`, `[N, H, W, 1 or 3]` uint8."""
  from PIL import Image

  height, width, channels = images.shape[1:]
  tile_h, tile_w = _tile(height, width)
  columns = math.ceil(math.sqrt(len(chosen)))
  rows = math.ceil(len(chosen) / columns)
  mode = "L" if channels == 1 else "RGB"
  sheet = Image.new(mode, (columns * tile_w, rows * tile_h))
  for place, index in enumerate(chosen):
    image = Image.fromarray(images[index, ..., 0] if channels == 1 else images[index])
    if (tile_h, tile_w) != (height, width):
      image = image.resize((tile_w, tile_h), Image.Resampling.LANCZOS)
    sheet.paste(image, (place % columns * tile_w, place // columns * tile_h))
  stream = io.BytesIO()
  if channels == 1:
    sheet.save(stream, "PNG", optimize=True)
  else:
    sheet.save(stream, "JPEG", quality=85, subsampling=0)
  kind = "png" if channels == 1 else "jpeg"
  scale = max(1, round(_SHOWN_TILE / max(tile_h, tile_w)))
  places = {index: place for place, index in enumerate(chosen)}
  size = (scale * tile_w, scale * tile_h)
  return Sprite(data_url(stream.getvalue(), f"image/{kind}"), size, columns, rows, places)


def picture_url(png: bytes) -> str:
  """Returns a PNG as a data URL, with 256 colours: a picture of lines looks the same."""
  from PIL import Image

  with Image.open(io.BytesIO(png)) as image:
    picture = image.convert("RGB")
  if picture.width > _MAX_WIDTH:
    picture = picture.resize((_MAX_WIDTH, round(picture.height * _MAX_WIDTH / picture.width)))
  stream = io.BytesIO()
  picture.quantize(256).save(stream, "PNG", optimize=True)
  return data_url(min(stream.getvalue(), png, key=len), "image/png")


def data_url(content: bytes, kind: str) -> str:
  """Returns content as a data URL of a MIME type."""
  return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _describe(example: Any) -> str:
  """Returns the first numbers of an example that is no image."""
  values: Iterable[Any] = np.ravel(example)[:_NUM_VALUES].tolist()
  more = ", ..." if np.size(example) > _NUM_VALUES else ""
  return ", ".join(f"{value:.3g}" for value in values) + more
