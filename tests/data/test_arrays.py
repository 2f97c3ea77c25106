"""Arrays of one's own: what becomes of them, and what is refused by name and place."""

import doctest
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import jaxdl
from jaxdl import data
from jaxdl.data import arrays
from jaxdl.errors import InputError

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


def made(x=X, y=Y, **kwargs):
  """A dataset whose training set is the arrays as they are."""
  return data.from_arrays(x, y, x, y, **kwargs)


@pytest.mark.parametrize(
  ("given_type", "shape", "became", "became_shape"),
  [
    (np.float64, (6, 4), np.float32, (6, 4)),
    (np.float16, (6, 4, 3), np.float32, (6, 4, 3)),
    (np.longdouble, (6,), np.float32, (6, 1)),
    (np.bool_, (6, 2), np.float32, (6, 2)),
    (np.int64, (6, 5), np.int32, (6, 5)),
    (np.uint16, (6, 5, 5, 1), np.int32, (6, 5, 5, 1)),
    (np.uint8, (6, 5, 4, 3), np.uint8, (6, 5, 4, 3)),
    (np.uint8, (6, 5, 4), np.uint8, (6, 5, 4, 1)),
    (np.uint8, (6, 5), np.float32, (6, 5)),
  ],
)
def test_types_and_shapes_of_inputs(given_type, shape, became, became_shape):
  given_array = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(given_type)
  inputs = made(given_array).train.inputs
  assert (inputs.dtype, inputs.shape) == (became, became_shape)
  np.testing.assert_array_equal(inputs, given_array.reshape(became_shape))
  assert inputs.flags.c_contiguous
  assert not np.shares_memory(inputs, given_array)


@given(
  arrays_of.arrays(
    st.sampled_from([np.float32, np.int32, np.uint8, np.int16, np.bool_]),
    arrays_of.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=5),
    elements=st.integers(0, 1),
  )
)
def test_values_stay_as_they_are(inputs):
  dataset = made(inputs, np.arange(len(inputs)) % 2)
  found = dataset.train.inputs
  np.testing.assert_array_equal(found.reshape(inputs.shape), inputs)
  assert found.dtype in (np.uint8, np.int32, np.float32)
  assert dataset.checksum == made(inputs, np.arange(len(inputs)) % 2).checksum


@pytest.mark.parametrize(
  ("targets", "labels", "names"),
  [
    (["b", "a", "c", "b"], [1, 0, 2, 1], ("a", "b", "c")),
    (np.array(["b", "a", "b", "a"], object), [1, 0, 1, 0], ("a", "b")),
    (np.array([b"b", b"a", b"b", b"a"]), [1, 0, 1, 0], ("a", "b")),
    ([0, 1, 2, 1], [0, 1, 2, 1], ("0", "1", "2")),
    ([3, 7, 3, 7], [0, 1, 0, 1], ("3", "7")),
    ([-1, 1, 1, -1], [0, 1, 1, 0], ("-1", "1")),
    ([[3], [7], [3], [7]], [0, 1, 0, 1], ("3", "7")),  # as Keras has CIFAR-10
    ([True, False, True, True], [1, 0, 1, 1], ("False", "True")),
    ([[0, 2], [1, 1], [2, 2], [0, 0]], [[0, 2], [1, 1], [2, 2], [0, 0]], ("0", "1", "2")),
    ([["B", "O"], ["O", "O"]] * 2, [[0, 1], [1, 1]] * 2, ("B", "O")),
  ],
)
def test_classes(targets, labels, names):
  dataset = made(X[:4], targets)
  np.testing.assert_array_equal(dataset.train.targets, labels)
  assert dataset.train.targets.dtype == np.int32
  assert dataset.class_names == names
  assert dataset.is_classification


def test_class_names():
  assert made(class_names=["ant", "bee", "cat", "dog"]).num_classes == 4
  dataset = made(y=["bee", "ant"] * 3, class_names=("cat", "bee", "ant"))
  assert dataset.train.targets.tolist() == [1, 2] * 3


@pytest.mark.parametrize(("targets", "shape"), [(X[:, 0], (6,)), (X, (6, 2)), (X[:, :1], (6, 1))])
def test_floats_are_regression(targets, shape):
  dataset = made(y=targets)
  assert not dataset.is_classification
  assert dataset.class_names == ()
  assert (dataset.train.targets.dtype, dataset.train.targets.shape) == (np.float32, shape)
  np.testing.assert_array_equal(dataset.train.targets, targets)


def test_lists_and_arrays_on_a_device():
  for x in (X.tolist(), jnp.asarray(X), jnp.asarray(X, jnp.bfloat16)):
    np.testing.assert_array_equal(made(x).train.inputs, X)


def test_validation_by_arrays_and_by_fraction():
  dataset = made(validation=(X[:2], Y[:2]))
  assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (6, 2, 6)
  assert dataset.checksum != made().checksum
  split = made(validation=0.5)
  expected = data.split_validation(made(), 0.5)
  np.testing.assert_array_equal(split.validation.inputs, expected.validation.inputs)
  assert split.checksum == made().checksum


@given(st.lists(st.integers(0, 3), min_size=8, max_size=60).filter(lambda y: len(set(y)) > 1))
def test_a_test_set_is_drawn(labels):
  """Every example is in one split; each class has its share; the rest is in another order."""
  x, names = np.arange(len(labels)), [f"class {label}" for label in labels]
  dataset = data.from_arrays(x, names, test_fraction=0.25)
  train, test = (split.inputs[:, 0].tolist() for split in (dataset.train, dataset.test))
  assert sorted(train + test) == x.tolist()
  assert train != sorted(train) or len(train) < 4
  for split in (dataset.train, dataset.test):
    found = np.array(dataset.class_names)[split.targets]
    assert found.tolist() == np.array(names)[split.inputs[:, 0]].tolist()
  for name in set(names):
    drawn = names.count(name) * len(test) / len(names)
    assert abs(np.array(names)[test].tolist().count(name) - drawn) < 1
  assert "the test set is a share of 0.25, drawn by class with seed 0" in dataset.description


@pytest.mark.parametrize(
  ("x", "y", "description"),
  [
    (X, Y, "12 examples with 2 numbers, 3 classes (4 each)"),
    (X[:, :1], [0, 0, 0, 0, 0, 1], "12 examples with 1 number, 2 classes (2 to 10 each)"),
    (X.astype(int), X[:, 0], "12 examples with 2 integers, targets from 0 to 10"),
    (X, X, "12 examples with 2 numbers, 2 targets from 0 to 11"),
    (np.zeros((6, 3, 4), np.uint8), Y, "12 images of 3 x 4 x 1, 3 classes (4 each)"),
    (X, np.ones((6, 9), int), "12 examples with 2 numbers, 2 classes at each of 9 positions"),
  ],
)
def test_descriptions(x, y, description):
  dataset = made(x, y, name="mine")
  assert dataset.description == f"mine: {description}; training 6, test 6"
  assert repr(dataset) == f"<{dataset.description}>"


def test_the_example_in_the_docstring():
  assert doctest.testmod(arrays) == (0, 2)
  assert jaxdl.from_arrays is data.from_arrays


NAN = np.array([[0.0, 1], [np.nan, 2]])
TWO = X[:2]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((X, Y[:5]), "x_train has 6 rows, but y_train has 5"),
    ((X, Y, X, Y[:5]), "x_test has 6 rows, but y_test has 5"),
    ((X, Y, X), "y_test is missing"),
    ((X, Y, None, Y), "x_test is missing"),
    ((X, None), "y_train is missing"),
    ((X[:0], Y[:0]), "x_train is empty"),
    ((X[:, :0], Y), "x_train is empty"),
    ((X, Y, X[:0], Y[:0]), "x_test is empty"),
    ((X, Y, X[:, :1], Y), r"x_test has rows of shape \(1,\), but x_train of \(2,\)"),
    ((X, Y, X.astype(int), Y), "x_test has rows of int32, but x_train of float32"),
    ((X, Y, X, X[:, 0]), "y_test has rows of float32, but y_train of int32"),
    ((X, Y, X, ["a"] * 6), "y_test has rows of text, but y_train of int32"),
    ((NAN, [0, 1]), r"x_train\[1, 0\] is nan"),
    ((TWO, [0, 1], NAN[::-1], [0, 1]), r"x_test\[0, 0\] is nan"),
    ((TWO, [np.inf, 0.0]), r"y_train\[0\] is inf"),
    (([[1e300], [0]], [0, 1]), r"x_train\[0, 0\] is 1e\+300, which is no number of float32"),
    (([[0], [2**31]], [0, 1]), r"x_train\[1, 0\] is 2,147,483,648, which is no integer of 32 bits"),
    ((TWO, ["a", None]), r"y_train\[1\] is None, and not text"),
    ((TWO, ["a", np.nan]), r"y_train\[1\] is nan, and not text"),
    ((TWO, [[[0]], [[1]]]), r"y_train must have shape \[N\]"),
    ((TWO, [0, 0]), "y_train has a single class, '0'"),
    ((TWO, [0, 1], TWO, [0, 2]), r"y_test\[1\] is 2, which is none of the 2 classes \[0, 1\]"),
    ((TWO, ["a", "b"], TWO, ["c", "b"]), r"y_test\[0\] is 'c', which is none of the 2 classes"),
    ((TWO, [[0, 1], [1, -1]]), r"y_train\[1, 1\] is -1, which is none of the 2 classes"),
    ((TWO, [[0, 2**30], [1, 1]]), "1,073,741,824 is no class"),
    ((TWO, np.eye(2)), r"y_train is one-hot, \(2, 2\); give the classes, y_train.argmax"),
    ((np.arange(300), np.arange(300)), "y_train has 300 different integers in 300 rows"),
    (([[1, 2], [3]], [0, 1]), "x_train is no array: ValueError"),
    ((3, [0, 1]), "x_train is no array of examples but 3"),
    (("text", [0, 1]), "x_train is no array of examples but 'text'"),
    ((["a", "b"], [0, 1]), "x_train must be numbers, not of type object"),
    ((X * 1j, Y), "x_train must be numbers, not of type complex128"),
    ((np.zeros(2, "M8[s]"), [0, 1]), "x_train must be numbers, not of type datetime64"),
    ((np.array([{}, {}]), [0, 1]), "x_train must be numbers, not of type object"),
  ],
)
def test_refused_arrays(arguments, message):
  with pytest.raises(InputError, match=f"^{message}"):
    data.from_arrays(*arguments)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"validation": (X, Y[:3])}, "x_val has 6 rows, but y_val has 3"),
    ({"validation": (X,)}, r"validation must be a fraction or \(inputs, targets\), not 1"),
    ({"validation": 1.0}, "the validation fraction must be 0 or more and less than 1"),
    ({"validation": "0.2"}, "the validation fraction must be"),
    ({"test_fraction": 0}, "a test fraction of 0 leaves 6 of 6 examples for training"),
    ({"test_fraction": 0.99}, "a test fraction of 0.99 leaves 0 of 6"),
    ({"test_fraction": np.nan}, "the test fraction must be"),
    ({"class_names": ["a", "b"]}, r"y_train\[2\] is 2, which is none of the 2 classes"),
    ({"class_names": ["a", "a", "b"]}, "class_names must be two or more different names"),
    ({"class_names": "abc"}, "class_names must be two or more different names"),
    ({"name": ""}, "name must be printable text"),
    ({"name": "a\nb"}, "name must be printable text"),
  ],
)
def test_refused_settings(settings, message):
  with pytest.raises(InputError, match=f"^{message}"):
    data.from_arrays(X, Y, **settings)


def test_classes_are_not_for_floats():
  with pytest.raises(InputError, match="class_names are given, but y_train has floats"):
    made(y=X[:, 0], class_names=["a", "b"])


# ----------------------------------------------------------------------------------------------
# preprocess


def halve(x):
  return x / 2.0


def scale(x, factor):
  return factor * x


def test_preprocess_keeps_bytes_and_identifies_the_dataset():
  inputs = np.zeros((6, 3, 3), np.uint8)
  dataset = made(inputs, preprocess=halve)
  assert (dataset.train.inputs.dtype, dataset.train.inputs.shape) == (np.uint8, (6, 3, 3))
  functions = (
    halve,
    lambda x: x / 2.0,
    lambda x: x / 3.0,
    functools.partial(scale, factor=2.0),
    "jax.numpy:sqrt",
  )
  checksums = {made(inputs, preprocess=function).checksum for function in functions}
  assert len(checksums) == 5
  assert made(inputs, preprocess=halve).checksum == dataset.checksum
  by_name = made(inputs, preprocess=f"{__name__}:halve")
  assert by_name.checksum == dataset.checksum


@pytest.mark.parametrize(
  ("preprocess", "message"),
  [
    ("softmax", "'softmax' is not of the form package.module:name"),
    ("jax.nn:softmix", "jax.nn:softmix cannot be imported: AttributeError"),
    ("no_such.module:f", "no_such.module:f cannot be imported: ModuleNotFoundError"),
    (3, "3 is neither text nor a function"),
    (lambda x: x @ x, r"preprocess <.*lambda.*> fails for inputs float32 \(2, 2, 2, 1\): \w+Error"),
    (lambda x: x.sum(), "and not floats"),
    (lambda x: x > 0, "and not floats"),
    (lambda x: (x, x), "and not floats"),
  ],
)
def test_preprocess_is_checked(preprocess, message):
  with pytest.raises(InputError, match=message):
    made(np.zeros((6, 2, 2, 1)), preprocess=preprocess)
