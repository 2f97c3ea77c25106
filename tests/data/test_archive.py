"""Datasets in a file of their own: as they were, or refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdl import data
from jaxdl.errors import InputError

X = np.arange(24.0).reshape(12, 2)
DATASETS = {
  "images": lambda: data.from_arrays(
    np.arange(12 * 6, dtype=np.uint8).reshape(12, 3, 2), ["a", "b", "c"] * 4, validation=0.3
  ),
  "numbers": lambda: data.from_arrays(X, X, validation=(X[:2], X[:2]), name="Zahlen, größer"),
  "sequences": lambda: data.from_arrays(X.astype(int), X.astype(int)),
  "preprocessed": lambda: data.from_arrays(X, X[:, 0], preprocess="jax.numpy:sqrt"),
  "selected": lambda: data.select_classes(data.load("digits"), (3, 7)),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_is_read_as_it_was_saved(kind, tmp_path):
  dataset, file = DATASETS[kind](), tmp_path / "run" / "data.npz"
  data.save(dataset, file)
  found = data.read(file)
  for field in dataclasses.fields(dataset):
    if not isinstance(getattr(dataset, field.name), data.Split):
      assert getattr(found, field.name) == getattr(dataset, field.name)
  for split, expected in zip(found.splits, dataset.splits, strict=True):
    for name in ("inputs", "targets"):
      array, as_saved = getattr(split, name), getattr(expected, name)
      np.testing.assert_array_equal(array, as_saved)
      assert array.dtype == as_saved.dtype
  assert found.description == dataset.description
  assert [path.name for path in file.parent.iterdir()] == ["data.npz"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  file = tmp_path_factory.mktemp("saved") / "data.npz"
  data.save(DATASETS["numbers"](), file)
  return file


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_refused_or_changes_nothing(saved, tmp_path, draw):
  content = bytearray(saved.read_bytes())
  if draw.draw(st.booleans()):
    del content[draw.draw(st.integers(0, len(content) - 1)) :]
  else:
    content[draw.draw(st.integers(0, len(content) - 1))] ^= draw.draw(st.integers(1, 255))
  file = tmp_path / "damaged.npz"
  file.write_bytes(content)
  try:
    found = data.read(file)
  except InputError:
    return
  assert found.checksum == DATASETS["numbers"]().checksum
  np.testing.assert_array_equal(found.train.inputs, DATASETS["numbers"]().train.inputs)


def test_what_cannot_be_saved_or_read(tmp_path):
  dataset = DATASETS["numbers"]()
  own = dataclasses.replace(dataset, preprocess=lambda x: x)
  with pytest.raises(InputError, match=r"other processes cannot import its preprocess <.*lambda"):
    data.save(own, tmp_path / "data.npz")
  assert list(tmp_path.iterdir()) == []
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write to"):
    data.save(dataset, tmp_path / "file" / "data.npz")
  for name in ("missing.npz", "file", "."):
    with pytest.raises(InputError, match="is no dataset that was saved, or is damaged"):
      data.read(tmp_path / name)
