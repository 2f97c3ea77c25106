"""What does a finished run predict for new images?

  jaxdl predict --workdir=DIR --inputs=a.png,b.png

prints, for each image and arm, the class with the highest mean probability over seeds, and the
range of that probability over seeds. Images are resized to the size of those in the run.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

import jaxdl
from jaxdl.errors import InputError, one_line
from jaxdl.opened import OpenedRun
from jaxdl.report import text_table
from jaxdl.store.files import expand_home

_FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a finished run.", flag_values=_FLAGS)
_INPUTS = flags.DEFINE_list("inputs", None, "Files of images.", flag_values=_FLAGS)
_ARMS = flags.DEFINE_list("arms", None, "Names of arms (default: all).", flag_values=_FLAGS)


def read_images(files: Sequence[str], shape: Sequence[int]) -> np.ndarray:
  """Returns images in the shape `(H, W, D)` of a run, `[N, H, W, D]` uint8.

  Raises:
    InputError: a file is no image, or the run did not train on images.
  """
  from PIL import Image

  if len(shape) != 3 or shape[2] not in (1, 3):
    raise InputError(f"the run did not train on images but on inputs of shape {list(shape)}")
  height, width, channels = shape
  images = []
  for file in files:
    try:
      with Image.open(expand_home(file)) as image:
        pixels = image.convert("L" if channels == 1 else "RGB").resize((width, height))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
      raise InputError(f"cannot read the image {file!r}: {error}") from error
    images.append(np.asarray(pixels, np.uint8).reshape(shape))
  return np.stack(images)


def rows(run: OpenedRun, files: Sequence[str], arms: Sequence[str]) -> list[list[str]]:
  """Returns a table, header first: what each arm says of each image.

  Raises:
    InputError: as of `read_images` and of `OpenedRun.predict`.
  """
  if not run.class_names:
    raise InputError("the run predicts numbers, not classes; use jaxdl.open_run(DIR).predict")
  images = read_images(files, run.input_shape)
  table = [["image", "arm", "label", "probability", "over seeds", "seeds that agree"]]
  for arm in arms:
    each = np.stack([*run.predict_each(images, arm).values()])  # [S, N, C]
    best = each.mean(axis=0).argmax(axis=-1)  # [N]
    for place, (file, label) in enumerate(zip(files, best, strict=True)):
      p = each[:, place, label]
      agree = int((each[:, place].argmax(axis=-1) == label).sum())
      table.append(
        [
          file,
          arm,
          run.class_names[label],
          f"{p.mean():.3f}",
          f"{p.min():.3f} to {p.max():.3f}",
          f"{agree} of {len(p)}",
        ]
      )
  return table


def main(argv: Sequence[str]) -> int:
  """Prints the table and returns the exit status."""
  if {"--help", "-h"} & set(argv):
    print(f"{__doc__}\n{_FLAGS.get_help()}")
    return 0
  try:
    rest = _FLAGS(argv)
    if rest[1:]:
      raise InputError(f"unknown argument {rest[1]!r}; settings are given as --name=value")
    for flag in (_WORKDIR, _INPUTS):
      if not flag.value:
        raise InputError(f"--{flag.name} is missing")
    run = jaxdl.open_run(_WORKDIR.value)
    print(text_table(rows(run, _INPUTS.value, _ARMS.value or list(run.experiment.arms))))
  except (flags.Error, InputError) as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
