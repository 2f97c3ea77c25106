"""Arrays of one's own -> dataset: any numbers as inputs; classes or numbers as targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl import calls, errors
from jaxdl.data.dataset import Dataset, Preprocess, Split, make_dataset
from jaxdl.data.splits import hold_out_test, split_validation

_INT32 = np.iinfo(np.int32)
# Integer targets with more values than this, and more values than every second row, are numbers
# that somebody forgot to make floats.
_MANY_CLASSES = 100
_MOST_CLASSES = 2**20


def from_arrays(
  x_train: Any,
  y_train: Any,
  x_test: Any = None,
  y_test: Any = None,
  *,
  validation: float | tuple[Any, Any] = 0.0,
  test_fraction: float = 0.2,
  class_names: Sequence[Any] | None = None,
  name: str = "arrays",
  preprocess: Preprocess | None = None,
) -> Dataset:
  """Makes a dataset of arrays, or of what NumPy makes arrays of; they are copied.

  Inputs `[N, ...]`: floats become float32, integers int32 and booleans float32. Images stay uint8
  `[N, H, W, D]` and are scaled by 1/255 inside the step; uint8 `[N, H, W]` are images of one
  channel, and uint8 of another rank becomes float32. With `preprocess`, uint8 stays uint8 of any
  shape. Inputs `[N]` become `[N, 1]`.

  Targets: strings, booleans or integers `[N]` are classes, numbered in the order of their sorted
  values in `y_train`, or of `class_names`. With `class_names`, integers are indices into them.
  Strings, booleans or integers `[N, L]` are a class for each position of a sequence; such integers
  are indices. `[N, 1]` becomes `[N]`, except for floats. Floats `[N]` or `[N, K]` are numbers to
  predict (regression).

  Args:
    x_train: inputs to train on.
    y_train: their targets.
    x_test: inputs to test on; None: `test_fraction` of the training set is drawn at random, always
      the same examples, with the share of every class as in the whole if there is one class per
      example. The rest is then shuffled.
    y_test: their targets.
    validation: inputs and targets of the validation set, or a fraction: the share of the training
      set that is taken from its end, as `split_validation` does.
    test_fraction: see `x_test`.
    class_names: the names of the classes; None: the sorted values in `y_train`.
    name: of the dataset, for reports.
    preprocess: a traced function `inputs [b, ...] -> floats [b, ...]` that is applied inside the
      step, or its name, "package.module:function".

  Returns:
    The dataset. `print` shows what was found, in one line.

  Raises:
    InputError: lengths or shapes do not match, a set is empty, an input or target is not finite or
      not a number of 32 bits, or a label is no class. The message names the argument and the place.

  Examples:
    >>> from jaxdl import from_arrays
    >>> from_arrays([[0.0, 1.0], [2.0, 3.0]] * 5, ["no", "yes"] * 5, name="tiny")
    <tiny: 10 examples with 2 numbers, 2 classes (5 each); training 8, test 2; the test set is a \
share of 0.2, drawn by class with seed 0>
  """
  if not isinstance(name, str) or not name or not name.isprintable():
    raise errors.InputError(f"name must be printable text, not {errors.show(name)}")
  given: dict[str, tuple[Any, Any]] = {"train": (x_train, y_train)}
  if x_test is not None or y_test is not None:
    given["test"] = (x_test, y_test)
  if isinstance(validation, tuple | list):
    if len(validation) != 2:
      raise errors.InputError(
        f"validation must be a fraction or (inputs, targets), not {len(validation)} arrays"
      )
    given["validation"], validation = (validation[0], validation[1]), 0.0
  keep_bytes = preprocess is not None
  inputs = {key: _to_inputs(_name("x", key), x, keep_bytes) for key, (x, _) in given.items()}
  targets = {key: _to_targets(_name("y", key), y) for key, (_, y) in given.items()}
  _check_same(inputs, targets)
  if preprocess is not None:
    _check_preprocess(preprocess, inputs["train"])
  names, targets = _to_classes(targets, class_names)
  splits = {key: Split(inputs[key], targets[key]) for key in given}
  notes = []
  if "test" not in splits:
    splits["train"], splits["test"], note = hold_out_test(
      splits["train"], test_fraction, bool(names)
    )
    notes.append(note)
  dataset = make_dataset(
    name, splits["train"], splits["test"], names, splits.get("validation"), preprocess, notes
  )
  return split_validation(dataset, validation)


def _name(letter: str, split: str) -> str:
  """Returns the argument's name, for messages."""
  return f"{letter}_{'val' if split == 'validation' else split}"


def _to_array(what: str, given: Any) -> np.ndarray:
  """Returns what was given as an array `[N, ...]` that is not empty."""
  if given is None:
    raise errors.InputError(f"{what} is missing")
  try:
    array = np.asarray(given)
    if array.dtype.kind == "U" and isinstance(given, list | tuple):
      array = np.asarray(given, object)  # NumPy would make text of None and of NaN
  except Exception as error:  # lists of different lengths, arrays on a device, data frames, ...
    raise errors.InputError(f"{what} is no array: {errors.brief(error)}") from error
  if array.ndim == 0:
    raise errors.InputError(f"{what} is no array of examples but {errors.show(given)}")
  if array.size == 0:
    raise errors.InputError(f"{what} is empty: its shape is {array.shape}")
  return array


def _to_inputs(what: str, given: Any, keep_bytes: bool) -> np.ndarray:
  """Returns inputs `[N, ...]` as uint8, int32 or float32."""
  array = _to_array(what, given)
  if array.ndim == 1:
    array = array[:, np.newaxis]  # [N, 1]
  if array.dtype == np.uint8:
    if keep_bytes or array.ndim == 4:
      return np.array(array, order="C")
    if array.ndim == 3:
      return np.array(array[..., np.newaxis], order="C")  # [N, H, W, 1]
    return array.astype(np.float32, order="C")
  if array.dtype.kind in "iu":
    return _to_int32(what, array)
  return _to_float32(what, array)


def _to_targets(what: str, given: Any) -> np.ndarray:
  """Returns targets as text, int32 (both `[N]` or `[N, L]`) or float32 (`[N]` or `[N, K]`)."""
  array = _to_array(what, given)
  if array.ndim > 2:
    raise errors.InputError(f"{what} must have shape [N], [N, L] or [N, K], not {array.shape}")
  if array.dtype.kind in "fb" and _is_one_hot(array):
    raise errors.InputError(
      f"{what} is one-hot, {array.shape}; give the classes, {what}.argmax(axis=1)"
    )
  if array.dtype.kind in "OSUT":
    array = _to_text(what, array)
  elif array.dtype.kind == "b" and array.ndim == 1:
    array = array.astype(str)
  elif array.dtype.kind in "iub":
    array = _to_int32(what, array)
  else:
    return _to_float32(what, array)
  return array[:, 0] if array.shape[1:] == (1,) else array


def _is_one_hot(array: np.ndarray) -> bool:
  ones = array == 1
  return (
    array.ndim == 2
    and array.shape[1] > 1
    and bool((ones.sum(axis=1) == 1).all() and (ones | (array == 0)).all())
  )


def _to_text(what: str, array: np.ndarray) -> np.ndarray:
  """Returns text as an array of NumPy's type `str`; raises if anything else is in it."""
  if array.dtype.kind == "S":
    try:
      return array.astype(str)
    except UnicodeDecodeError as error:
      raise errors.InputError(f"{what} is not text in ASCII: {errors.brief(error)}") from error
  for place, value in np.ndenumerate(array):
    if not isinstance(value, str):
      raise errors.InputError(f"{_at(what, place)} is {errors.show(value)}, and not text")
  return array.astype(str)


def _to_int32(what: str, array: np.ndarray) -> np.ndarray:
  if array.dtype != bool and (array.min() < _INT32.min or array.max() > _INT32.max):
    (place, *_) = np.argwhere((array < _INT32.min) | (array > _INT32.max))
    raise errors.InputError(
      f"{_at(what, place)} is {array[tuple(place)]:,}, which is no integer of 32 bits"
    )
  return array.astype(np.int32, order="C")


def _to_float32(what: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind not in "fb" and not np.can_cast(array.dtype, np.float64):  # bfloat16 can
    raise errors.InputError(f"{what} must be numbers, not of type {array.dtype}")
  with np.errstate(over="ignore"):
    converted = array.astype(np.float32, order="C")
  if not np.isfinite(converted).all():
    (place, *_) = np.argwhere(~np.isfinite(converted))
    value = array[tuple(place)]
    reason = ", which is no number of float32" if np.isfinite(value) else ""
    raise errors.InputError(f"{_at(what, place)} is {value}{reason}")
  return converted


def _at(what: str, place: Sequence[int]) -> str:
  return f"{what}[{', '.join(map(str, place))}]"


def _check_same(inputs: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> None:
  """Checks that inputs and targets have equal lengths, and splits the same shapes and types."""
  for key in inputs:
    x, y = _name("x", key), _name("y", key)
    if len(inputs[key]) != len(targets[key]):
      raise errors.InputError(
        f"{x} has {len(inputs[key]):,} rows, but {y} has {len(targets[key]):,}"
      )
    for what, arrays in ((x, inputs), (y, targets)):
      train, other = arrays["train"], arrays[key]
      if train.shape[1:] != other.shape[1:]:
        raise errors.InputError(
          f"{what} has rows of shape {other.shape[1:]}, but {what[0]}_train of {train.shape[1:]}"
        )
      if train.dtype.kind != other.dtype.kind:
        raise errors.InputError(
          f"{what} has rows of {_type(other)}, but {what[0]}_train of {_type(train)}"
        )


def _type(array: np.ndarray) -> str:
  return "text" if array.dtype.kind == "U" else str(array.dtype)


def _check_preprocess(preprocess: Preprocess, inputs: np.ndarray) -> None:
  """Checks that a function makes floats `[b, ...]` of inputs `[b, ...]`, without computing any."""
  import jax  # only here, so that data load fast

  function, name = calls.Call.of(preprocess).function(), f"preprocess {calls.Call.of(preprocess)}"
  shape = (2, *inputs.shape[1:])
  try:
    made = jax.eval_shape(function, jax.ShapeDtypeStruct(shape, inputs.dtype))
  except Exception as error:  # whatever the user's code raises
    raise errors.InputError(
      f"{name} fails for inputs {inputs.dtype} {shape}: {errors.brief(error)}"
    ) from error
  is_array = isinstance(made, jax.ShapeDtypeStruct)
  if not is_array or made.shape[:1] != (2,) or not jax.dtypes.issubdtype(made.dtype, np.floating):
    raise errors.InputError(f"{name} makes {made} of inputs {shape}, and not floats [2, ...]")


def _to_classes(
  targets: Mapping[str, np.ndarray], class_names: Sequence[Any] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
  """Returns the names of the classes, none for regression, and targets as int32 or float32."""
  train = targets["train"]
  if class_names is not None:
    class_names = _check_names(class_names)
  if train.dtype.kind == "f":
    if class_names is not None:
      raise errors.InputError("class_names are given, but y_train has floats; give classes")
    return (), dict(targets)
  if train.dtype.kind == "i" and (class_names is not None or train.ndim == 2):
    most = max(int(array.max()) for array in targets.values())
    if most >= _MOST_CLASSES:
      raise errors.InputError(f"{most:,} is no class: number the classes 0, 1, 2, ...")
    names = class_names or tuple(map(str, range(most + 1)))
    values: np.ndarray = np.arange(len(names))
  elif class_names is not None:
    values, names = np.array(class_names), class_names
  else:
    values = np.unique(train)
    names = tuple(map(str, values.tolist()))
    _check_number(train, len(names))
  if len(names) < 2:
    raise errors.InputError(f"y_train has a single class, {names[0]!r}; at least two are needed")
  return names, {key: _to_indices(_name("y", key), y, values) for key, y in targets.items()}


def _check_names(class_names: Sequence[Any]) -> tuple[str, ...]:
  is_list = isinstance(class_names, Sequence | np.ndarray) and not isinstance(class_names, str)
  names = tuple(map(str, class_names)) if is_list else ()
  if len(names) < 2 or len(set(names)) < len(names):
    raise errors.InputError(
      f"class_names must be two or more different names, not {errors.show(class_names)}"
    )
  return names


def _check_number(train: np.ndarray, num_classes: int) -> None:
  if train.dtype.kind == "i" and num_classes > max(_MANY_CLASSES, len(train) // 2):
    raise errors.InputError(
      f"y_train has {num_classes:,} different integers in {len(train):,} rows; integers are "
      "classes: give floats to predict numbers, or class_names"
    )


def _to_indices(what: str, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns for each label its index in `values` `[C]`, int32; raises if it is none of them."""
  order = np.argsort(values, kind="stable")
  place = np.minimum(np.searchsorted(values, labels, sorter=order), len(values) - 1)
  indices = order[place]
  wrong = values[indices] != labels
  if wrong.any():
    (place, *_) = np.argwhere(wrong)
    label = labels[tuple(place)].item()
    raise errors.InputError(
      f"{_at(what, place)} is {label!r}, which is none of the {len(values):,} classes "
      f"{errors.show(values.tolist())} of y_train or class_names"
    )
  return indices.astype(np.int32)
