"""The handwritten digits that come with scikit-learn: real data that needs no download."""

import warnings

import numpy as np

from jaxdl.data.dataset import Dataset, Split, make_dataset


def load() -> Dataset:
  """Loads scikit-learn's 1,797 digits as 28x28 images.

  The test set is every fourth example of each class (its 4th, 8th, ...), so that it is stratified
  and always the same.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklearn import datasets  # Imported here because it takes two seconds.

    digits = datasets.load_digits()
  images = _enlarge_digits(digits.images.astype(np.int64))
  labels = digits.target.astype(np.int32)
  is_test = np.zeros(len(labels), bool)
  for label in range(10):
    is_test[np.flatnonzero(labels == label)[3::4]] = True
  train = Split(images[~is_test], labels[~is_test])
  test = Split(images[is_test], labels[is_test])
  return make_dataset("digits", train, test, [str(label) for label in range(10)])


def _enlarge_digits(images: np.ndarray) -> np.ndarray:
  """Resizes images [N, 8, 8], 0 to 16, to uint8 [N, 28, 28, 1], 0 to 255.

  The digit takes the middle 20x20 pixels, as in MNIST. Interpolation is bilinear, with pixel
  centres at half integers and the border repeated. Output pixel i lies at
  (i + 1/2) * 8 / 20 - 1/2 = (4 i - 3) / 10 of the input, so all weights are tenths, and integer
  arithmetic gives the same pixels on every machine.
  """
  weights = np.zeros((20, 8), np.int64)  # tenths
  for i in range(20):
    low, tenths = divmod(min(max(4 * i - 3, 0), 70), 10)
    weights[i, low] += 10 - tenths
    weights[i, min(low + 1, 7)] += tenths
  enlarged = weights @ images @ weights.T  # [N, 20, 20], 0 to 1600
  pixels = ((255 * enlarged + 800) // 1600).astype(np.uint8)  # rounded half up
  return np.pad(pixels, ((0, 0), (4, 4), (4, 4)))[..., np.newaxis]  # [N, 28, 28, 1]
