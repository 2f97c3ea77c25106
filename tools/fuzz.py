"""Looks for files that break a reader.

  python tools/fuzz.py TARGET [FOLDER] [options of libFuzzer]

Each target reads a file that somebody else may have written, and may raise nothing but InputError.
Atheris changes the file and keeps what reaches new branches of jaxdl. It starts from sound files
and from those in FOLDER, to which it adds. It ends at the first file that breaks a target, which it
writes to `crash-...`; the same command with that file in the place of FOLDER reads only it. Useful
options: -max_total_time=SECONDS, -max_len=BYTES, -timeout=SECONDS (for one file).
"""

import contextlib
import hashlib
import io
import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import atheris

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "data")]

with atheris.instrument_imports(include=["jaxdl"]):
  from jaxdl import data, stats
  from jaxdl.byhand import worksheet as worksheets
  from jaxdl.data import archive
  from jaxdl.errors import InputError

Target = Callable[[bytes], object]


def worksheet(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """Worksheets of hand calculations, as TOML."""
  file = folder / "sheet.toml"

  def read(content: bytes):
    file.write_bytes(content)
    worksheets.check(file)

  return read, [path.read_bytes() for path in (ROOT / "experiments/worksheets").rglob("*.toml")]


def dataset_file(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """Datasets in a file, as caches and other processes have them."""
  file = folder / "dataset.npz"
  data.save(_small(), file)

  def read(content: bytes):
    file.write_bytes(content)
    data.read(file)

  return read, [file.read_bytes()]


def dataset_description(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """The description in such a file, with a right checksum: what is behind the checksums."""
  file = folder / "dataset.npz"
  whole = io.BytesIO()
  archive.write(whole, _small())
  import numpy as np

  with np.load(io.BytesIO(whole.getvalue())) as found:
    arrays = dict(found)
  text = arrays.pop("meta").tobytes()[32:]

  def read(content: bytes):
    meta = np.frombuffer(hashlib.sha256(content).digest() + content, np.uint8)
    np.savez(file, **arrays, meta=meta)
    data.read(file)

  return read, [text]


def dataset_info(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """`dataset_info.json` of a prepared copy of a TFDS dataset."""
  return _part_of_prepared(folder, "dataset_info.json")


def features(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """`features.json` of a prepared copy of a TFDS dataset."""
  return _part_of_prepared(folder, "features.json")


def array_record(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """A file of records of a prepared copy of a TFDS dataset, metadata included."""
  return _part_of_prepared(folder, "tiny-train.array_record-00000-of-00001")


def scores(folder: pathlib.Path) -> tuple[Target, list[bytes]]:
  """Tables of scores, as trackers export them."""
  import pandas as pd

  def read(content: bytes):
    try:
      frame = pd.read_csv(io.BytesIO(content))
    except Exception:  # the script reports any error of pandas in one line
      return
    columns = {"metric": "acc", "arm": "arm", "seed": "seed"}
    for task in (None, "task"):
      found = stats.Scores.from_frame(frame, **columns, task=task, resolution=0.001)
      for each in [found] if task is None else found.values():
        stats.compare(each, 0.01, num_resamples=999)

  rows = "".join(f"{arm},{seed},0.{5 + seed}{seed},t\n" for arm in "ab" for seed in range(3))
  return read, [f"arm,seed,acc,task\n{rows}".encode()]


def _small() -> data.Dataset:
  import numpy as np

  images = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3, 1)
  return data.from_arrays(images, np.array([0, 1, 0, 1]), images, np.array([1, 0, 1, 0]))


def _part_of_prepared(folder: pathlib.Path, name: str) -> tuple[Target, list[bytes]]:
  import test_data

  splits = {"train": test_data.random_split(4, 0), "test": test_data.random_split(3, 1)}
  place = test_data.write_tiny(folder / "tiny" / "1.0.0", splits, num_shards=1) / name

  def read(content: bytes):
    place.write_bytes(content)
    data.load("tiny", data_dir=folder, cache_dir=folder / "cache")

  return read, [place.read_bytes()]


TARGETS = {
  of.__name__: of
  for of in (
    *(worksheet, dataset_file, dataset_description, dataset_info, features, array_record),
    scores,
  )
}


@contextlib.contextmanager
def _folder() -> Iterator[pathlib.Path]:
  with tempfile.TemporaryDirectory(prefix="jaxdl-fuzz-") as name:
    yield pathlib.Path(name)


def main(argv: list[str]) -> int:
  """Runs one target until libFuzzer ends the process."""
  if len(argv) < 2 or argv[1] not in TARGETS:
    print(f"{__doc__}\nTargets: {', '.join(TARGETS)}", file=sys.stderr)
    return 2
  logging.disable(logging.CRITICAL)
  os.environ.setdefault("JAXDL_CACHE_DIR", "/nonexistent")
  with _folder() as folder, _folder() as corpus:
    target, sound = TARGETS[argv[1]](folder)
    for number, content in enumerate(sound):
      target(content)  # which raises nothing at all
      (corpus / f"sound-{number}").write_bytes(content)

    def test_one(content: bytes):
      with contextlib.suppress(InputError):
        target(content)

    given = argv[2:]
    places = [] if any(os.path.isfile(one) for one in given) else [str(corpus)]
    # What libFuzzer finds goes to the first folder.
    folders = [one for one in given if not one.startswith("-")]
    options = [one for one in given if one.startswith("-")]
    atheris.Setup([argv[0], *options, *folders, *places], test_one)
    atheris.Fuzz()
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
