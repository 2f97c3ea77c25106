"""Folders with a subfolder of images per class."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxdl import errors
from jaxdl.data import memory
from jaxdl.data.dataset import Dataset, Split, make_dataset
from jaxdl.data.splits import hold_out_test, random_order

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
# Pillow's modes of 8 bits or less that have one channel.
_GREY = ("1", "L")
# Those that Pillow converts to red, green and blue; transparency is dropped.
_COLORS = ("LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def load(
  folder: pathlib.Path, resize: int | tuple[int, int] | None = None, test_fraction: float = 0.2
) -> Dataset:
  """Loads FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE and likewise `test` and `validation`.

  Classes and images are read in the order of their names, and training images then shuffled, always
  in the same way. Files whose names start with a point are ignored. Images are grey if all of them
  are, and else have three channels; transparency is dropped.

  Args:
    folder: the folder.
    resize: the size that all images are stretched to, a height and width in pixels or a single
      number for both; None: they must have one size.
    test_fraction: the share of images to test on if there is no folder `test`.

  Raises:
    InputError: a file is no image of 8 bits per channel, images differ in size, a class has no
      image or is not in `train`, or the images are larger than this machine's memory.
  """
  size = _check_size(resize)
  parts = {_SPLITS.get(path.name, ""): path for path in _visible(folder)}
  if "train" not in parts or "" in parts:
    parts = {"train": folder}
  files = {split: _files(path) for split, path in parts.items()}  # split -> [(class, file)]
  class_names = sorted({name for name, _ in files["train"]})
  if len(class_names) < 2:
    raise errors.InputError("needs a subfolder of images for each of two or more classes")
  shape = _image_shape([file for found in files.values() for _, file in found], size)
  num_images = sum(map(len, files.values()))
  memory.check_fits(num_images * int(np.prod(shape)))
  splits = {split: _read(found, shape, class_names) for split, found in files.items()}
  notes = [] if size is None else [f"resized to {size[0]} x {size[1]}"]
  if "test" in splits:
    splits["train"] = splits["train"].take(random_order(len(splits["train"])))
  else:
    splits["train"], splits["test"], note = hold_out_test(splits["train"], test_fraction, True)
    notes.append(note)
  return make_dataset(
    folder.name,
    splits["train"],
    splits["test"],
    class_names,
    splits.get("validation"),
    notes=notes,
  )


def _check_size(resize: Any) -> tuple[int, int] | None:
  """Returns `(height, width)`."""
  size = (resize, resize) if isinstance(resize, int) else resize
  is_pair = isinstance(size, tuple) and len(size) == 2
  if size is None or (is_pair and all(type(n) is int and 0 < n < 2**15 for n in size)):
    return size
  raise errors.InputError(
    f"resize must be pixels or (height, width) in pixels, not {errors.show(resize)}"
  )


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns what is in a folder, in the order of names."""
  try:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
  except OSError as error:
    raise errors.InputError(f"cannot be read: {folder}: {error.strerror or error}") from error


def _files(folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
  """Returns the name of the class and the file of each image."""
  found = []
  for path in _visible(folder):
    if not path.is_dir():
      raise errors.InputError(f"has a file where there should be folders of classes: {path}")
    files = _visible(path)
    if not files:
      raise errors.InputError(f"has no image in {path}")
    found += [(path.name, file) for file in files]
  return found


def _image_shape(
  files: Sequence[pathlib.Path], size: tuple[int, int] | None
) -> tuple[int, int, int]:
  """Returns the shape `(H, W, D)` of all images, from what their files say of themselves."""
  sizes: dict[tuple[int, int], pathlib.Path] = {}  # (height, width) -> the first of that size
  channels = 1
  for file in files:
    with _image(file) as image:
      if image.mode not in (*_GREY, *_COLORS):
        raise errors.InputError(f"has an image of Pillow's mode {image.mode}: {file}")
      sizes.setdefault((image.height, image.width), file)
      channels = max(channels, 1 if image.mode in _GREY else 3)
  if size is None and len(sizes) > 1:
    (first, file), (second, other) = list(sizes.items())[:2]
    raise errors.InputError(
      f"has images of {first[0]} x {first[1]} ({file}) and {second[0]} x {second[1]} ({other}): "
      "choose one size with resize=PIXELS"
    )
  height, width = size or next(iter(sizes))
  return height, width, channels


def _read(
  files: Sequence[tuple[str, pathlib.Path]], shape: tuple[int, int, int], class_names: list[str]
) -> Split:
  from PIL import Image

  height, width, channels = shape
  images = np.empty((len(files), *shape), np.uint8)
  labels = np.empty(len(files), np.int32)
  for i, (name, file) in enumerate(files):
    if name not in class_names:
      raise errors.InputError(f"has no training images of the class {name!r} of {file}")
    with _image(file) as image:
      pixels = image.convert("L" if channels == 1 else "RGB")
      if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
      images[i] = np.asarray(pixels).reshape(shape)
    labels[i] = class_names.index(name)
  return Split(images, labels)


@contextlib.contextmanager
def _image(file: pathlib.Path) -> Iterator[Any]:
  """Opens an image; raises InputError for whatever Pillow cannot read in it."""
  from PIL import Image

  try:
    with warnings.catch_warnings():
      # So large that a small file could fill the memory.
      warnings.simplefilter("error", Image.DecompressionBombWarning)
      with Image.open(file) as image:
        yield image
  except errors.InputError:
    raise
  except Exception as error:  # Pillow's decoders raise many types of error on damaged files
    raise errors.InputError(
      f"has a file that is no image, or is damaged: {file}: {errors.brief(error)}"
    ) from error
