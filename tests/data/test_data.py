"""Datasets: what is loaded, what is refused, and that damage never passes for data."""

import dataclasses
import hashlib
import importlib.util
import io
import json
import logging
import math
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdl import data
from jaxdl.data import cache, tfds, tfds_records
from jaxdl.data import digits as digits_lib
from jaxdl.data.dataset import Dataset, Split
from jaxdl.errors import InputError

SHARED = pathlib.Path(__file__).parents[3] / "shared"
DIGITS_CHECKSUM = "58d0851232b4cb0c86aa7d1d3bf187a6c6e3feaa901a31e025d682d62c4bdbb6"
MNIST_CHECKSUM = "9f43ca9d28a05fb0dd9051b0ae0f23549075a53774b38f916f71817a663461c0"

needs_mnist = pytest.mark.skipif(
  not (SHARED / "tfds" / "mnist").is_dir(), reason="needs ../shared/tfds/mnist"
)
fuzz = settings(
  deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# ----------------------------------------------------------------------------------------------
# A prepared dataset of a few examples, written as TFDS writes it, without TensorFlow


def random_split(num_examples, seed, shape=(5, 4, 1), num_classes=3):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (num_examples, *shape), dtype=np.uint8)
  labels = np.arange(num_examples, dtype=np.int32) % num_classes
  return Split(images, rng.permutation(labels))


def png(image):
  from PIL import Image

  stream = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "png")
  return stream.getvalue()


def serialize(image, label):
  """Returns a record: a tf.train.Example with an encoded image and a label."""
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()
  encoded = image if isinstance(image, bytes) else png(image)
  example.features.feature["image"].bytes_list.value.append(encoded)
  example.features.feature["label"].int64_list.value.append(int(label))
  return example.SerializeToString()


def write_records(path, records):
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()


def feature_json(shape=(5, 4, 1), num_classes=3, dtype="uint8"):
  module = "tensorflow_datasets.core.features."
  image = {"dtype": dtype, "shape": {"dimensions": [str(n) for n in shape]}}
  if dtype != "uint8":
    image["encodingFormat"] = "png"
  label = {"classLabel": {"numClasses": str(num_classes)}}
  features = {
    "image": {"image": image, "pythonClassName": module + "image_feature.Image"},
    "label": label | {"pythonClassName": module + "class_label_feature.ClassLabel"},
  }
  return {
    "featuresDict": {"features": features},
    "pythonClassName": module + "features_dict.FeaturesDict",
  }


def info_json(name, version, shard_lengths):
  template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
  return {
    "fileFormat": "array_record",
    "name": name,
    "splits": [
      {
        "filepathTemplate": template,
        "name": split,
        "numBytes": "1000",
        "shardLengths": [str(length) for length in lengths],
      }
      for split, lengths in shard_lengths.items()
    ],
    "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
    "version": version,
  }


def write_tiny(folder, splits, num_shards=2, class_names=("ant", "bee", "cat")):
  """Writes a prepared dataset into ROOT/NAME/.../VERSION."""
  folder.mkdir(parents=True)
  name = "tiny"
  shard_lengths = {}
  for split, examples in splits.items():
    shards = np.array_split(np.arange(len(examples)), num_shards)
    shard_lengths[split] = [len(shard) for shard in shards]
    for i, shard in enumerate(shards):
      path = folder / f"{name}-{split}.array_record-{i:05d}-of-{num_shards:05d}"
      write_records(path, [serialize(examples.inputs[j], examples.targets[j]) for j in shard])
  shape = next(iter(splits.values())).inputs.shape[1:]
  (folder / "features.json").write_text(json.dumps(feature_json(shape, len(class_names))))
  (folder / "dataset_info.json").write_text(json.dumps(info_json(name, folder.name, shard_lengths)))
  (folder / "label.labels.txt").write_text("\n".join(class_names) + "\n")
  return folder


TRAIN, TEST = random_split(23, seed=0), random_split(10, seed=1)


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory):
  root = tmp_path_factory.mktemp("tfds")
  write_tiny(root / "tiny" / "1.0.0", {"train": TRAIN, "test": TEST})
  return root


@pytest.fixture
def tiny(tiny_original, tmp_path):
  """A tiny dataset to be damaged: its data_dir, its folder and a cache_dir."""
  root = tmp_path / "tfds"
  shutil.copytree(tiny_original, root)
  return types.SimpleNamespace(
    root=root, folder=root / "tiny" / "1.0.0", cache=tmp_path / "cache", name="tiny"
  )


def load(tiny, **kwargs):
  return data.load(tiny.name, tiny.root, tiny.cache, **kwargs)


def edit_json(path, edit):
  content = json.loads(path.read_text())
  edit(content)
  path.write_text(json.dumps(content))


def assert_tiny(dataset):
  """Asserts that these are the examples that were written."""
  for split, expected in ((dataset.train, TRAIN), (dataset.test, TEST)):
    np.testing.assert_array_equal(split.inputs, expected.inputs)
    np.testing.assert_array_equal(split.targets, expected.targets)
  assert dataset.class_names == ("ant", "bee", "cat")


def assert_form(dataset):
  """Asserts what `load` promises of images."""
  for split in (dataset.train, dataset.validation, dataset.test):
    assert (split.inputs.dtype, split.targets.dtype) == (np.uint8, np.int32)
    assert split.inputs.flags.c_contiguous
    assert split.targets.flags.c_contiguous
    assert split.inputs.shape[:1] == split.targets.shape
    assert split.inputs.shape[1:] == dataset.train.inputs.shape[1:]
    assert np.all((split.targets >= 0) & (split.targets < dataset.num_classes))
  assert dataset.checksum == checksum(dataset)


def checksum(dataset):
  """The second definition: all bytes at once."""
  content = b""
  for array in (
    dataset.train.inputs,
    dataset.train.targets,
    dataset.test.inputs,
    dataset.test.targets,
  ):
    content += array.dtype.str.encode() + str(list(array.shape)).encode() + array.tobytes()
  return hashlib.sha256(content).hexdigest()


def in_subprocess(code, *args, env=None):
  """Runs code in a fresh interpreter whose sockets do not connect."""
  prelude = """
    import socket, sys
    def refuse(*args, **kwargs):
      raise AssertionError("the network was tried")
    socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
    from jaxdl import data
  """
  script = textwrap.dedent(prelude) + textwrap.dedent(code)
  root = pathlib.Path(data.__file__).parents[2]
  return subprocess.run(
    [sys.executable, "-W", "error", "-c", script, *map(str, args)],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
    env=os.environ | {"PYTHONPATH": str(root)} | (env or {}),
  )


# ----------------------------------------------------------------------------------------------
# digits


@pytest.fixture(scope="module")
def digits():
  return data.load("digits")


@pytest.fixture(scope="module")
def sklearn_digits():
  from sklearn import datasets

  return datasets.load_digits()


def test_digits_form(digits):
  assert_form(digits)
  assert digits.name == "digits"
  assert digits.class_names == tuple("0123456789")
  assert digits.train.inputs.shape == (1352, 28, 28, 1)
  assert digits.test.inputs.shape == (445, 28, 28, 1)
  assert len(digits.validation) == 0
  # The same on every machine: a change of this value changes every result on digits.
  assert digits.checksum == DIGITS_CHECKSUM


def test_digits_test_set_is_every_fourth_of_each_class(digits, sklearn_digits):
  counts = np.bincount(sklearn_digits.target)
  np.testing.assert_array_equal(np.bincount(digits.test.targets), counts // 4)
  np.testing.assert_array_equal(np.bincount(digits.train.targets), counts - counts // 4)
  pixels = digits_lib._enlarge_digits(sklearn_digits.images.astype(np.int64))
  seen = [0] * 10
  train, test = [], []
  for image, label in zip(pixels, sklearn_digits.target, strict=True):
    seen[label] += 1
    (test if seen[label] % 4 == 0 else train).append(image)
  np.testing.assert_array_equal(digits.train.inputs, train)
  np.testing.assert_array_equal(digits.test.inputs, test)


def test_digits_are_enlarged_as_pillow_does(sklearn_digits):
  from PIL import Image

  pixels = digits_lib._enlarge_digits(sklearn_digits.images[:100].astype(np.int64))
  for margin in (slice(None, 4), slice(-4, None)):
    assert not pixels[:, margin].any()
    assert not pixels[:, :, margin].any()
  for image, enlarged in zip(sklearn_digits.images, pixels, strict=False):
    expected = Image.fromarray(image.astype(np.float32)).resize((20, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(expected) * 255 / 16
    # Half a grey level of rounding, and what float32 makes of a tie.
    assert np.abs(enlarged[4:-4, 4:-4, 0] - expected).max() <= 0.5 + 1e-4


def test_digits_by_hand():
  image = np.zeros((1, 8, 8), np.int64)
  image[0, 0, 0] = 16
  pixels = digits_lib._enlarge_digits(image)[0, 4:8, 4:8, 0]
  # Output pixels 0 to 3 lie at -0.3, 0.1, 0.5 and 0.9 of the input, and -0.3 is clipped to 0.
  weights = np.array([1.0, 0.9, 0.5, 0.1])
  expected = 255 * np.outer(weights, weights)
  np.testing.assert_array_equal(pixels, np.floor(expected + 0.5))
  np.testing.assert_array_equal(
    digits_lib._enlarge_digits(np.full((1, 8, 8), 16))[0, 4:24, 4:24], 255
  )


def test_digits_needs_neither_tfds_nor_a_cache(tmp_path):
  code = """
    assert data.load("digits", cache_dir=sys.argv[1]).num_classes == 10
    assert not {"tensorflow", "tensorflow_datasets", "array_record"} & set(sys.modules)
  """
  result = in_subprocess(code, tmp_path / "cache")
  assert (result.returncode, result.stderr) == (0, "")
  assert not (tmp_path / "cache").exists()


# ----------------------------------------------------------------------------------------------
# Prepared datasets


def test_prepared_copy_is_read_as_written(tiny):
  for _ in range(2):  # From the record files, then from the cache.
    dataset = load(tiny)
    assert_tiny(dataset)
    assert_form(dataset)
    assert dataset.name == "tiny"
    assert len(dataset.validation) == 0


def test_reading_tries_neither_tensorflow_nor_the_network_and_prints_nothing(tiny):
  code = """
    checksums = []
    for cached in (False, True):
      checksums.append(data.load("tiny", sys.argv[1], sys.argv[2]).checksum)
      assert "tensorflow" not in sys.modules
    print(*checksums, "tensorflow_datasets" in sys.modules)
  """
  expected = load(tiny).checksum
  for imports_tfds in (True, False):  # The second process finds everything in the cache.
    result = in_subprocess(code, tiny.root, tiny.cache / "other")
    assert result.stdout.split() == [expected, expected, str(imports_tfds)], result.stderr
    assert result.stderr == ""


def test_data_dir_from_the_environment(tiny, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tiny.root))
  assert_tiny(data.load("tiny", cache_dir=tiny.cache))


def test_newest_version_unless_one_is_given(tiny):
  newest = random_split(6, seed=7)
  write_tiny(tiny.root / "tiny" / "1.10.0", {"train": newest, "test": newest}, num_shards=1)
  write_tiny(tiny.root / "tiny" / "1.9.0", {"train": TEST, "test": TEST})
  np.testing.assert_array_equal(load(tiny).train.inputs, newest.inputs)
  for name in ("tiny:1.0.0", "tiny/1.0.0"):
    tiny.name = name
    assert_tiny(load(tiny))


def test_config(tiny):
  other = random_split(6, seed=8)
  write_tiny(tiny.root / "zoo" / "big" / "2.0.0", {"train": other, "test": other})
  shutil.copytree(tiny.folder, tiny.root / "zoo" / "small" / "1.0.0")
  tiny.name = "zoo/small"
  assert_tiny(load(tiny))
  assert load(tiny).name == "zoo/small"
  tiny.name = "zoo/big"
  np.testing.assert_array_equal(load(tiny).test.inputs, other.inputs)
  (tiny.root / "zoo" / ".config").mkdir()
  (tiny.root / "zoo" / ".config" / "metadata.json").write_text('{"default_config_name": "small"}')
  tiny.name = "zoo"
  assert_tiny(load(tiny))


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("", "must be NAME"),
    ("../tiny", r"^there is no folder \.\./tiny and no /"),
    ("tiny/../tiny", "must be NAME"),
    ("tiny/..", "must be NAME"),
    ("/tiny", "^there is no folder /tiny$"),
    ("tiny\n", "must be NAME"),
    ("a/b/c", "must be NAME"),
    (None, "must be NAME"),
    (3, "must be NAME"),
    ("digits/large", "no configs, versions or parts"),
    ("digits:1.0.0", "no configs, versions or parts"),
    ("digits[:10%]", "versions or parts"),
    ("mnist[:10", "must be NAME"),
    ("mnist[10]", "must be NAME"),
    ("mnist[:1.5%]", "must be NAME"),
    ("mnist[:101%]", "must be NAME"),
    ("mnits", "did you mean 'mnist'"),
    ("MNIST", "did you mean 'mnist'"),
    ("fashion-mnist", "did you mean 'fashion_mnist'"),
    ("digit", "did you mean 'digits'"),
    ("qqqqqqqq", "unknown dataset 'qqqqqqqq'; known"),
    ("emnist/leters", "did you mean 'letters'"),
    ("mnist/leters", "mnist has no configs"),
  ],
)
def test_bad_names(tmp_path, name, message):
  with pytest.raises(InputError, match=message):
    data.load(name, tmp_path, tmp_path / "cache")


def test_not_prepared_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  for name in ("mnist", "emnist/letters", "mnist:3.0.1"):
    with pytest.raises(InputError, match=r"jaxdl\[prepare\].*make install-prepare") as error:
      data.load(name, tmp_path, tmp_path / "cache")
    assert str(error.value).startswith(f"{name} is not prepared in {tmp_path}")


def test_not_prepared_says_which_other_version_is(tiny_original, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  monkeypatch.setattr(tfds, "_check_tfds_name", lambda *_: None)
  with pytest.raises(InputError, match=r"tiny:2\.0\.0 is not prepared in .*, which has version 1"):
    data.load("tiny:2.0.0", tiny_original)


def test_data_dir_must_be_local(tmp_path):
  with pytest.raises(InputError, match="folder on this machine"):
    data.load("mnist", "gs://bucket/datasets", tmp_path)


# Each edits features.json or dataset_info.json of a sound dataset.
REFUSED = {
  "sizes": ("features.json", lambda c: c["featuresDict"]["features"]["image"]["image"]["shape"]
            .update(dimensions=["-1", "-1", "1"]), "images differ in size"),
  "huge": ("features.json", lambda c: c["featuresDict"]["features"]["image"]["image"]["shape"]
           .update(dimensions=["4000000000000000000", "4", "1"]), "does not fit in memory"),
  "uint16": ("features.json", lambda c: c["featuresDict"].update(
    feature_json(dtype="uint16")["featuresDict"]), "uint16, not uint8"),
  "no keys": ("dataset_info.json", lambda c: c.pop("supervisedKeys"), "supervised keys None"),
  "unknown key": ("dataset_info.json", lambda c: c["supervisedKeys"]["tuple"]["items"][0]
                  .update(featureKey="picture"), "'picture'"),
  "swapped keys": ("dataset_info.json", lambda c: c["supervisedKeys"]["tuple"]["items"]
                   .reverse(), "not an image but ClassLabel"),
  "label is no class": ("dataset_info.json", lambda c: c["supervisedKeys"]["tuple"]["items"][1]
                        .update(featureKey="image"), "not a class but Image"),
  "no train": ("dataset_info.json", lambda c: c["splits"][0].update(name="validation"),
               "no split train; its splits: test, validation"),
  "tfrecord": ("dataset_info.json", lambda c: c.update(fileFormat="tfrecord"),
               "'tfrecord' and not as array_record"),
  "empty split": ("dataset_info.json", lambda c: c["splits"][1].update(shardLengths=[]),
                  "split test has no examples"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_datasets(tiny, case):
  file, edit, message = REFUSED[case]
  edit_json(tiny.folder / file, edit)
  with pytest.raises(InputError, match=message):
    load(tiny)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  """Two datasets in three shards: one with a split `validation`, one without a split `test`."""
  root = tmp_path_factory.mktemp("zoo")
  splits = {"train": TRAIN, "validation": random_split(7, seed=3), "test": TEST}
  write_tiny(root / "with_validation" / "1.0.0", splits, num_shards=3)
  write_tiny(root / "without_test" / "1.0.0", {"train": TRAIN}, num_shards=3)
  return root


def test_a_datasets_own_validation_split_is_used(zoo, tmp_path):
  expected = random_split(7, seed=3)
  for _ in range(2):  # From the record files, then from the cache.
    dataset = data.load("with_validation", zoo, tmp_path)
    assert_tiny(dataset)
    np.testing.assert_array_equal(dataset.validation.inputs, expected.inputs)
    np.testing.assert_array_equal(dataset.validation.targets, expected.targets)
    assert dataset.description == (
      "with_validation: 40 images of 5 x 4 x 1, 3 classes (12 to 15 each); "
      "training 23, validation 7, test 10"
    )
  assert dataset.checksum != data.load("without_test", zoo, tmp_path).checksum


def test_a_dataset_without_a_test_split_gets_one(zoo, tmp_path):
  first, again = (data.load("without_test", zoo, tmp_path) for _ in range(2))
  assert (len(first.train), len(first.test)) == (18, 5)
  assert first.description == again.description
  assert "the test set is a share of 0.2, drawn by class with seed 0" in first.description
  assert first.checksum == again.checksum
  rows = [split.inputs.reshape(len(split), -1) for split in (first.train, first.test)]
  found = np.concatenate(rows)
  expected = TRAIN.inputs.reshape(23, -1)
  np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize(
  ("part", "expected"),
  [
    ("[:5]", slice(0, 5)),
    ("[5:20]", slice(5, 20)),
    ("[20:]", slice(20, 23)),
    ("[-4:]", slice(19, 23)),
    ("[:-20]", slice(0, 3)),
    ("[:10%]", slice(0, 2)),  # 2.3
    ("[11%:50%]", slice(3, 12)),  # 2.53 and 11.5, rounded to even as TFDS does
    ("[-50%:]", slice(11, 23)),
    ("[:100%]", slice(0, 23)),
  ],
)
def test_a_part_of_the_training_split(tiny, part, expected, monkeypatch):
  read = []
  records = tfds_records._records
  monkeypatch.setattr(
    tfds_records,
    "_records",
    lambda source, wanted: read.append(len(wanted)) or records(source, wanted),
  )
  for version in ("", ":1.0.0"):
    dataset = data.load(f"tiny{version}{part}", tiny.root, tiny.cache)
    np.testing.assert_array_equal(dataset.train.inputs, TRAIN.inputs[expected])
    np.testing.assert_array_equal(dataset.train.targets, TRAIN.targets[expected])
    np.testing.assert_array_equal(dataset.test.inputs, TEST.inputs)
    assert dataset.name == f"tiny{part}"
  assert sum(read) == len(TRAIN.inputs[expected]) + len(TEST)  # and only once
  assert_tiny(load(tiny))


@pytest.mark.parametrize("part", ["[5:5]", "[7:3]", "[:24]", "[:0]", "[:1%]", "[-24:]"])
def test_parts_that_are_refused(tiny, part):
  with pytest.raises(InputError, match=r"^\[.*\] of 23 examples is from .* at least one example"):
    data.load(f"tiny{part}", tiny.root, tiny.cache)


# ----------------------------------------------------------------------------------------------
# Damaged datasets


def shard(tiny, split="train"):
  return tiny.folder / f"tiny-{split}.array_record-00001-of-00002"


def assert_damaged(tiny, path):
  with pytest.raises(InputError) as error:
    load(tiny)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)
  assert not tiny.cache.exists()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("length", [0, 1, 1000, 65536, 65537, -65536, -1])
def test_truncated_records(tiny, split, length):
  path = shard(tiny, split)
  content = path.read_bytes()[:length]
  path.write_bytes(content)
  assert_damaged(tiny, path)


@pytest.mark.parametrize("content", [bytes(131072), b"hello\n" * 30000])
def test_overwritten_records(tiny, content):
  shard(tiny).write_bytes(content)
  assert_damaged(tiny, shard(tiny))


def test_missing_records(tiny):
  shard(tiny).unlink()
  assert_damaged(tiny, shard(tiny))


@pytest.mark.parametrize("num_records", [0, 10, 12])
def test_number_of_records(tiny, num_records):
  examples = [serialize(TRAIN.inputs[0], TRAIN.targets[0])] * num_records
  write_records(shard(tiny), examples)  # Sound, but 11 are due.
  assert_damaged(tiny, shard(tiny))


@pytest.mark.parametrize("length", ["10", "12", "4000000000000", "-1"])
def test_shard_lengths(tiny, length):
  def edit(content):
    content["splits"][0]["shardLengths"][1] = length

  edit_json(tiny.folder / "dataset_info.json", edit)
  with pytest.raises(InputError, match=r"dataset_info\.json"):
    load(tiny)


@pytest.mark.parametrize(
  ("record", "message"),
  [
    (b"", "IndexError"),
    (lambda: serialize(TRAIN.inputs[0], 0)[:-20], "is damaged"),
    (b"\xff\xff\xff", "DecodeError"),
    (lambda: serialize(TRAIN.inputs[0], 3), "a label is 3, not from 0 to 2"),
    (lambda: serialize(TRAIN.inputs[0], -2), "a label is -2, not from 0 to 2"),
    (lambda: serialize(TRAIN.inputs[0, :4], 0), "an image is uint8"),
    (lambda: serialize(png(TRAIN.inputs[0])[:-30], 0), "OSError"),
    (lambda: serialize(b"no image", 0), "UnidentifiedImageError"),
  ],
)
def test_records_of_something_else(tiny, record, message):
  record = record() if callable(record) else record
  write_records(shard(tiny), [serialize(TRAIN.inputs[0], 0)] * 10 + [record])
  with pytest.raises(InputError, match=message):
    load(tiny)
  assert_damaged(tiny, shard(tiny))


def test_labels_that_are_kept_secret_are_no_damage(tiny):
  write_records(shard(tiny, "test"), [serialize(TEST.inputs[0], -1)] * 5)
  with pytest.raises(InputError, match=r"tiny/1\.0\.0 has examples without a label in 'test'") as e:
    load(tiny)
  assert "damaged" not in str(e.value)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
  "content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'"text"', b"[" * 100_000, None]
)
def test_damaged_json(tiny, file, content):
  if content is None:
    (tiny.folder / file).unlink()
  else:
    (tiny.folder / file).write_bytes(content)
  with pytest.raises(InputError, match=str(tiny.folder)):
    load(tiny)
  if content != b"{}":
    assert_damaged(tiny, tiny.folder / file)


@pytest.mark.parametrize("content", [b"", b"ant\nbee\n", b"ant\nbee\nant\n", b"ant\nbee\n\xff\n"])
def test_damaged_class_names(tiny, content):
  (tiny.folder / "label.labels.txt").write_bytes(content)
  assert_damaged(tiny, tiny.folder / "label.labels.txt")


def test_classes_without_names_are_numbered(tiny):
  (tiny.folder / "label.labels.txt").unlink()
  assert load(tiny).class_names == ("0", "1", "2")


@fuzz
@given(st.data())
def test_flipped_records(tiny_original, tmp_path_factory, draw):
  """One wrong byte in a record file is refused, or is where nothing is stored."""
  root = tmp_path_factory.mktemp("flip") / "tfds"
  shutil.copytree(tiny_original, root)
  path = root / "tiny" / "1.0.0" / "tiny-train.array_record-00001-of-00002"
  content = bytearray(path.read_bytes())
  # Most of a file this small is padding: aim at the parts that are not.
  used = np.flatnonzero(np.frombuffer(content, np.uint8))
  position = int(used[draw.draw(st.integers(0, len(used) - 1))])
  content[position] ^= draw.draw(st.integers(1, 255))
  path.write_bytes(content)
  message = None
  try:
    assert_tiny(data.load("tiny", root, root.parent / "cache"))
  except InputError as error:
    message = str(error)
  finally:
    shutil.rmtree(root.parent)
  assert message is None or str(path) in message


@fuzz
@given(st.data())
def test_flipped_json(tiny_original, tmp_path_factory, draw):
  """One wrong byte in the description never gives other pixels or labels, nor a traceback."""
  root = tmp_path_factory.mktemp("flip") / "tfds"
  shutil.copytree(tiny_original, root)
  file = draw.draw(st.sampled_from(["dataset_info.json", "features.json"]))
  path = root / "tiny" / "1.0.0" / file
  content = bytearray(path.read_bytes())
  position = draw.draw(st.integers(0, len(content) - 1))
  content[position] ^= draw.draw(st.integers(1, 255))
  path.write_bytes(content)
  try:
    dataset = data.load("tiny", root, root.parent / "cache")
    np.testing.assert_array_equal(dataset.train.inputs, TRAIN.inputs)
    np.testing.assert_array_equal(dataset.train.targets, TRAIN.targets)
  except InputError:
    pass
  finally:
    shutil.rmtree(root.parent)


# ----------------------------------------------------------------------------------------------
# The cache


@pytest.fixture
def warnings_logged():
  """The warnings that are logged during a test."""
  messages = []
  handler = logging.Handler(logging.WARNING)
  handler.emit = lambda record: messages.append(record.getMessage())
  logger = logging.getLogger("jaxdl")
  logger.addHandler(handler)
  yield messages
  logger.removeHandler(handler)


def cache_file(tiny):
  """The only file in the cache: there is one for each source, and no litter."""
  (file,) = tiny.cache.iterdir()
  return file


def test_cache_is_used(tiny, monkeypatch):
  first = load(tiny)
  assert cache_file(tiny).name.startswith("tiny-1.0.0-")
  monkeypatch.delattr(tfds_records, "read")
  again = load(tiny)
  assert_tiny(again)
  assert again.checksum == first.checksum


def test_cache_is_a_plain_npz_without_pickle(tiny):
  load(tiny)
  with np.load(cache_file(tiny), allow_pickle=False) as arrays:
    np.testing.assert_array_equal(arrays["train_inputs"], TRAIN.inputs)
    np.testing.assert_array_equal(arrays["test_targets"], TEST.targets)


def test_cache_follows_the_source(tiny, warnings_logged):
  load(tiny)
  changed = Split(TRAIN.inputs, (TRAIN.targets + 1) % 3)
  shutil.rmtree(tiny.folder)
  write_tiny(tiny.folder, {"train": changed, "test": TEST})
  np.testing.assert_array_equal(load(tiny).train.targets, changed.targets)
  cache_file(tiny)
  assert warnings_logged == []


def test_cache_does_not_hide_a_damaged_source(tiny):
  load(tiny)
  shutil.rmtree(tiny.cache)  # Only for assert_damaged: nothing may be cached of damage.
  load(tiny)
  content = shard(tiny).read_bytes()
  shard(tiny).write_bytes(content[:-1])
  with pytest.raises(InputError, match=shard(tiny).name):
    load(tiny)
  shard(tiny).write_bytes(content)
  assert_tiny(load(tiny))
  shard(tiny, "test").unlink()
  with pytest.raises(InputError, match=shard(tiny, "test").name):
    load(tiny)


def test_copies_in_different_folders_are_cached_apart(tiny, tmp_path):
  write_tiny(tmp_path / "second" / "tiny" / "1.0.0", {"train": TEST, "test": TRAIN})
  assert_tiny(load(tiny))
  swapped = data.load("tiny", tmp_path / "second", tiny.cache)
  np.testing.assert_array_equal(swapped.train.inputs, TEST.inputs)
  assert len(list(tiny.cache.iterdir())) == 2
  assert_tiny(load(tiny))


def test_cache_dir(tiny, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  monkeypatch.setenv("JAXDL_CACHE_DIR", str(tmp_path / "jaxdl"))
  for folder, variable in (
    (tmp_path / "jaxdl", "JAXDL_CACHE_DIR"),
    (tmp_path / "xdg" / "jaxdl", "XDG_CACHE_HOME"),
    (tmp_path / "home" / ".cache" / "jaxdl", "HOME"),
  ):
    assert not folder.exists()
    data.load("tiny", tiny.root)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setenv(variable, "")


DAMAGE = {
  "empty": lambda file: file.write_bytes(b""),
  "garbage": lambda file: file.write_bytes(b"garbage" * 1000),
  "truncated": lambda file: file.write_bytes(file.read_bytes()[:-100]),
  "zeros": lambda file: file.write_bytes(bytes(len(file.read_bytes()))),
  "npy": lambda file: np.save(file.open("wb"), TRAIN.inputs),
  "pickle": lambda file: np.save(file.open("wb"), np.array([{}]), allow_pickle=True),
  "no arrays": lambda file: np.savez(file),
  "missing array": lambda file: resave(file, lambda arrays: arrays.pop("test_targets")),
  "wrong type": lambda file: resave(
    file, lambda arrays: arrays.update(train_targets=arrays["train_targets"].astype(np.int64))
  ),
  "wrong shape": lambda file: resave(
    file, lambda arrays: arrays.update(train_inputs=arrays["train_inputs"][:-1])
  ),
  "wrong label": lambda file: resave(file, lambda arrays: arrays["train_targets"].sort()),
  "wrong description": lambda file: resave(file, lambda arrays: arrays["meta"].sort()),
}


def resave(file, edit):
  with np.load(file) as npz:
    arrays = dict(npz)
  edit(arrays)
  np.savez(file, **arrays)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_damaged_cache_is_rebuilt(tiny, damage, warnings_logged):
  load(tiny)
  file = cache_file(tiny)
  sound = file.read_bytes()
  DAMAGE[damage](file)
  assert_tiny(load(tiny))
  (message,) = warnings_logged
  assert str(file) in message
  assert "\n" not in message
  assert cache_file(tiny).read_bytes() == sound
  assert_tiny(load(tiny))
  assert len(warnings_logged) == 1


@settings(fuzz, max_examples=80)
@given(st.data())
def test_flipped_or_truncated_cache(tiny_original, tmp_path_factory, draw):
  cache = tmp_path_factory.getbasetemp() / "flipped_cache"
  data.load("tiny", tiny_original, cache)
  (file,) = cache.iterdir()
  content = bytearray(file.read_bytes())
  if draw.draw(st.booleans()):
    del content[draw.draw(st.integers(0, len(content))) :]
  for _ in range(draw.draw(st.integers(0, 3))):
    if content:
      position = draw.draw(st.integers(0, len(content) - 1))
      content[position] ^= draw.draw(st.integers(1, 255))
  file.write_bytes(content)
  assert_tiny(data.load("tiny", tiny_original, cache))


@pytest.mark.parametrize("obstacle", ["file as folder", "folder as file", "no home"])
def test_cache_that_cannot_be_written_is_done_without(tiny, obstacle, monkeypatch, warnings_logged):
  if obstacle == "file as folder":
    tiny.cache.write_text("not a folder")
  elif obstacle == "folder as file":
    load(tiny)
    name = cache_file(tiny).name
    shutil.rmtree(tiny.cache)
    (tiny.cache / name / "something").mkdir(parents=True)
  else:

    def no_home():
      raise RuntimeError("Could not determine home directory.")

    for variable in ("JAXDL_CACHE_DIR", "XDG_CACHE_HOME"):
      monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pathlib.Path.home", no_home)
    tiny.cache = None
  cache._warn_once.cache_clear()
  for _ in range(3):
    assert_tiny(load(tiny))
  messages = [message for message in warnings_logged if "cached" in message]
  assert len(messages) == 1
  assert all("\n" not in message for message in warnings_logged)


def test_failed_write_leaves_no_litter(tiny):
  code = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # A disk that fills up.
    assert len(data.load("tiny", sys.argv[1], sys.argv[2]).train) == 23
  """
  result = in_subprocess(code, tiny.root, tiny.cache)
  assert result.returncode == 0, result.stderr
  assert list(tiny.cache.iterdir()) == []
  (line,) = result.stderr.splitlines()
  assert "tiny is not cached in" in line


def test_interrupted_write_leaves_no_litter(tiny, monkeypatch):
  def interrupt(source, target):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
      load(tiny)
  assert list(tiny.cache.iterdir()) == []


# ----------------------------------------------------------------------------------------------
# MNIST itself


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
  return data.load("mnist", SHARED / "tfds", tmp_path_factory.mktemp("mnist_cache"))


@needs_mnist
def test_mnist(mnist):
  assert_form(mnist)
  assert mnist.train.inputs.shape == (60000, 28, 28, 1)
  assert mnist.test.inputs.shape == (10000, 28, 28, 1)
  assert mnist.class_names == tuple("0123456789")
  assert mnist.checksum == MNIST_CHECKSUM
  # As published: counts of each digit.
  assert np.bincount(mnist.train.targets).tolist() == [
    5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
  ]  # fmt: skip


@needs_mnist
def test_mnist_threes_and_sevens(mnist):
  pair = data.select_classes(mnist, (3, 7))
  assert (len(pair.train), len(pair.test)) == (12396, 2038)
  assert np.bincount(pair.test.targets).tolist() == [1010, 1028]
  assert pair.class_names == ("3", "7")
  split = data.split_validation(pair, 0.2)
  assert (len(split.train), len(split.validation), len(split.test)) == (9916, 2480, 2038)
  np.testing.assert_array_equal(split.validation.inputs, pair.train.inputs[9916:])


@needs_mnist
@pytest.mark.parametrize("length", [20_000_000, 23_199_743])
def test_truncated_mnist(tmp_path, length):
  folder = tmp_path / "mnist" / "3.0.1"
  shutil.copytree(SHARED / "tfds" / "mnist" / "3.0.1", folder, copy_function=shutil.copyfile)
  folder.chmod(0o755)
  path = folder / "mnist-train.array_record-00000-of-00001"
  os.truncate(path, length)
  with pytest.raises(InputError, match=path.name):
    data.load("mnist", tmp_path, tmp_path / "cache")


@needs_mnist
@pytest.mark.skipif(
  not (SHARED / "tfds_downloads").is_dir() or not importlib.util.find_spec("tensorflow"),
  reason="needs TensorFlow and ../shared/tfds_downloads",
)
def test_mnist_is_prepared_from_its_archives(tmp_path):
  shutil.copytree(SHARED / "tfds_downloads", tmp_path / "downloads", copy_function=shutil.copyfile)
  (tmp_path / "downloads").chmod(0o755)
  code = """
    folder = sys.argv[1]
    downloads = f"{folder}/downloads"
    dataset = data.load("mnist", f"{folder}/tfds", f"{folder}/cache", download_dir=downloads)
    print(dataset.checksum)
  """
  result = in_subprocess(code, tmp_path)
  assert result.stdout.split()[-1:] == [MNIST_CHECKSUM], result.stderr


# ----------------------------------------------------------------------------------------------
# select_classes


def make_dataset(train_labels, test_labels=(0, 1, 2), class_names=("ant", "bee", "cat")):
  """A dataset whose every image is its own position, to see which examples are kept."""

  def split(labels):
    labels = np.asarray(labels, np.int32)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(images, labels)

  return Dataset(
    "made", split(train_labels), split([]), split(test_labels), tuple(class_names), "0" * 64
  )


def positions(split):
  return split.inputs[:, 0, 0, 0].tolist()


def test_select_classes_by_hand():
  dataset = make_dataset([2, 0, 1, 2, 2, 1, 0], [1, 0, 2, 1])
  selected = data.select_classes(dataset, ("cat", 0))
  assert positions(selected.train) == [0, 1, 3, 4, 6]
  assert selected.train.targets.tolist() == [0, 1, 0, 0, 1]
  assert positions(selected.test) == [1, 2]
  assert selected.test.targets.tolist() == [1, 0]
  assert selected.class_names == ("cat", "ant")
  assert (selected.name, selected.checksum) == (dataset.name, dataset.checksum)
  assert selected.train.targets.dtype == np.int32
  assert selected.train.inputs.flags.c_contiguous


def test_select_classes_also_in_validation():
  dataset = data.split_validation(make_dataset([0, 1, 2, 0, 1, 2, 0, 1]), 0.5)
  selected = data.select_classes(dataset, [1, 0])
  assert positions(selected.validation) == [4, 6, 7]
  assert selected.validation.targets.tolist() == [0, 1, 0]


def test_index_and_name_agree(digits):
  by_index = data.select_classes(digits, (3, np.int64(7)))
  by_name = data.select_classes(digits, ("3", "7"))
  np.testing.assert_array_equal(by_index.train.inputs, by_name.train.inputs)
  np.testing.assert_array_equal(by_index.train.targets, by_name.train.targets)
  for old, new in ((3, 0), (7, 1)):
    for split, original in ((by_index.train, digits.train), (by_index.test, digits.test)):
      kept, expected = split.inputs[split.targets == new], original.inputs[original.targets == old]
      np.testing.assert_array_equal(kept, expected)


@given(st.permutations(range(5)), st.lists(st.integers(0, 4), min_size=20, max_size=40))
def test_selecting_all_classes_is_a_relabelling(order, labels):
  dataset = make_dataset([0, 1, 2, 3, 4, *labels], range(5), "abcde")
  selected = data.select_classes(dataset, order)
  np.testing.assert_array_equal(selected.train.inputs, dataset.train.inputs)
  np.testing.assert_array_equal(np.array(order)[selected.train.targets], dataset.train.targets)
  back = data.select_classes(selected, list("abcde"))
  np.testing.assert_array_equal(back.train.targets, dataset.train.targets)
  assert back.class_names == dataset.class_names


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    ((0, 3), r"no class 3; known: 0 \(ant\), 1 \(bee\), 2 \(cat\)"),
    ((0, -1), "no class -1"),
    ((0, "beee"), "did you mean 'bee'.*known: ant, bee, cat"),
    ((0, "ant"), "'ant' is selected twice"),
    ((1, 1), "'bee' is selected twice"),
    ((1,), "two or more"),
    ((), "two or more"),
    ("ant", "a list of classes"),
    ({0, 1}, "a list of classes"),
    (None, "a list of classes"),
    ((0, True), "an index or a name"),
    ((0, 1.0), "an index or a name"),
    ((0, None), "an index or a name"),
    ((0, 2), "no training example of class 'cat'"),
  ],
)
def test_select_classes_refuses(classes, message):
  with pytest.raises(InputError, match=message):
    data.select_classes(make_dataset([0, 1, 1, 0]), classes)


# ----------------------------------------------------------------------------------------------
# split_validation


@pytest.mark.parametrize(
  ("num_examples", "fraction", "num_train"),
  [
    (12396, 0.2, 9916),  # 9916.8
    (60000, 0.1, 54000),
    (10, 0.1, 9),
    (10, 0.9, 0),  # 1 - 0.9 is less than 0.1 in double precision: Keras too keeps none of 10.
    (10, 0.7, 3),
    (10, 0.3, 7),
    (3, 0.5, 1),
    (2, 0.5, 1),
  ],
)
def test_split_validation_by_hand(num_examples, fraction, num_train):
  dataset = make_dataset(np.arange(num_examples) % 3)
  if num_train == 0:
    with pytest.raises(InputError, match="leaves 0 of 10"):
      data.split_validation(dataset, fraction)
    return
  split = data.split_validation(dataset, fraction)
  assert (len(split.train), len(split.validation)) == (num_train, num_examples - num_train)


@given(
  st.lists(st.integers(0, 4), min_size=2, max_size=200),
  st.floats(0.01, 0.99),
  st.sampled_from(["shuffled", "stratified"]),
)
def test_random_validation_sets(labels, fraction, how):
  """The parts are as large as from the end, in order, and always have the same examples."""
  dataset = make_dataset(labels, class_names="abcde")
  num_train = math.floor(len(labels) * (1.0 - fraction))
  if num_train in (0, len(labels)):
    return
  split = data.split_validation(dataset, fraction, how)
  parts = positions(split.train), positions(split.validation)
  assert len(parts[0]) == num_train
  assert sorted(parts[0] + parts[1]) == list(range(len(labels)))
  assert parts == (sorted(parts[0]), sorted(parts[1]))
  again = data.split_validation(dataset, fraction, how)
  assert positions(again.validation) == parts[1]
  assert f"validation set {how} with seed 0" in split.description
  if how == "stratified":
    share = (len(labels) - num_train) / len(labels)
    counts = np.bincount(labels)
    np.testing.assert_array_less(
      abs(np.bincount(split.validation.targets, minlength=len(counts)) - share * counts), 1
    )


def test_which_examples_are_drawn_does_not_change():
  dataset = make_dataset([1] * 3 + [0] * 9)
  assert positions(data.split_validation(dataset, 0.25, "shuffled").validation) == [2, 3, 11]
  dataset = make_dataset([0] * 8 + [1] * 4)
  split = data.split_validation(dataset, 0.5, "stratified")
  assert positions(split.validation) == [1, 2, 3, 6, 8, 11]


def test_ways_to_split():
  dataset = make_dataset([0, 1, 2, 0])
  with pytest.raises(InputError, match="did you mean 'stratified'"):
    data.split_validation(dataset, 0.5, "stratify")
  numbers = dataclasses.replace(dataset, class_names=())
  with pytest.raises(InputError, match=r"cannot be stratified.*use 'shuffled'"):
    data.split_validation(numbers, 0.5, "stratified")
  assert len(data.split_validation(numbers, 0.5, "shuffled").validation) == 2
  with pytest.raises(InputError, match="do not have one class each"):
    data.select_classes(numbers, (0, 1))


@given(st.integers(1, 300), st.floats(0, 1, exclude_max=True))
def test_split_validation_takes_the_end(num_examples, fraction):
  dataset = make_dataset(np.arange(num_examples) % 3)
  split_at = math.floor(num_examples * (1.0 - fraction))  # Keras's line.
  if fraction > 0 and split_at in (0, num_examples):
    with pytest.raises(InputError, match="both parts need at least one"):
      data.split_validation(dataset, fraction)
    return
  split = data.split_validation(dataset, fraction)
  assert len(split.train) == split_at
  for field in ("inputs", "targets"):
    parts = [getattr(split.train, field), getattr(split.validation, field)]
    np.testing.assert_array_equal(np.concatenate(parts), getattr(dataset.train, field))
    assert all(part.flags.c_contiguous for part in parts)
  assert split.test is dataset.test


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, math.nan, math.inf, "0.2", None, True])
def test_split_validation_refuses_fractions(fraction):
  with pytest.raises(InputError, match="0 or more and less than 1"):
    data.split_validation(make_dataset([0, 1, 2]), fraction)


def test_a_validation_set_that_is_there_is_kept(caplog):
  split = data.split_validation(make_dataset([0, 1, 2, 0]), 0.5)
  with caplog.at_level(logging.WARNING, "jaxdl"):
    assert data.split_validation(split, 0) is split
    assert caplog.text == ""
    assert data.split_validation(split, 0.5) is split
  assert "made has a validation set of 2 examples" in caplog.text


@pytest.mark.parametrize(
  ("labels", "warned"), [([0, 0, 1, 1, 2, 2], True), ([0, 1, 2, 0, 1, 2], False), ([0] * 6, False)]
)
def test_a_validation_set_of_one_class_is_warned_of(labels, warned, caplog):
  with caplog.at_level(logging.WARNING, "jaxdl"):
    data.split_validation(make_dataset(labels), 0.3)
  text = "all 2 validation examples of"
  assert [text in record.getMessage() for record in caplog.records] == [True] * warned
