"""Worst mistakes come worst first; augmented images stand beside their originals."""

import numpy as np
import pytest
from drawing import make_images, make_population, message

from jaxdl.errors import InputError
from jaxdl.report import example_plots


def with_probabilities(class_1, labels, thresholds=(0.5,), loss="binary_cross_entropy"):
  """A population of two classes with given mean probabilities of class 1, per arm `[A, N]`."""
  class_1, labels = np.atleast_2d(class_1), np.asarray(labels)
  base = make_population(
    num_seeds=1, num_arms=len(class_1), num_examples=len(labels), thresholds=thresholds, loss=loss
  )
  object.__setattr__(base, "mean_probabilities", np.stack([1 - class_1, class_1], axis=-1))
  object.__setattr__(base, "test_targets", labels)
  return base


def titles(figure):
  """The titles of a grid of images, as one line each."""
  return [" ".join(ax.get_title().split()) for ax in figure.axes]


def test_mistakes_come_worst_first_then_the_least_certain():
  population = with_probabilities([0.9, 0.2, 0.8, 0.45, 0.1, 0.999], [0, 1, 1, 1, 0, 1])
  images = make_images(population)
  figure = example_plots.worst_mistakes(population, images)
  assert titles(figure) == [
    "✗ true 0, predicted 1 (p = 0.90)",
    "✗ true 1, predicted 0 (p = 0.80)",
    "✗ true 1, predicted 0 (p = 0.55)",
    "✓ true 1, predicted 1 (p = 0.80)",
    "✓ true 0, predicted 0 (p = 0.90)",
    "✓ true 1, predicted 1 (p > 0.99)",
  ]
  for ax, index in zip(figure.axes, [0, 1, 3, 2, 4, 5], strict=True):
    np.testing.assert_array_equal(ax.images[0].get_array(), images[index, ..., 0])
    assert ax.images[0].get_interpolation() == "nearest"
    assert ax.images[0].get_clim() == (0, 255)
  frames = [ax.spines["top"].get_edgecolor() for ax in figure.axes]
  assert len(set(frames[:3])) == len(set(frames[3:])) == 1
  assert frames[0] != frames[3]
  assert "3 mistakes in 6 test images" in figure.get_suptitle()


def test_order_is_that_of_a_sort_by_hand():
  population = make_population(num_arms=3, num_classes=5, num_examples=200)
  probabilities = population.mean_probabilities[1]
  ranked = []
  for index, label in enumerate(population.test_targets):
    predicted = max(range(5), key=lambda c: probabilities[index, c])
    ranked.append((predicted == label, probabilities[index, label], label, predicted, index))
  ranked.sort()
  images = make_images(population, channels=3)
  figure = example_plots.worst_mistakes(population, images, arm="arm 1", num_images=10)
  assert len(figure.axes) == 10
  for ax, (_, _, label, predicted, index) in zip(figure.axes, ranked, strict=False):
    assert f"true {label}, predicted {predicted} " in " ".join(ax.get_title().split())
    np.testing.assert_array_equal(ax.images[0].get_array(), images[index])


def test_one_output_predicts_by_the_threshold_of_its_arm():
  # Strictly above, as the metrics have it.
  population = with_probabilities([0.3, 0.31, 0.6], [1, 1, 1], thresholds=[0.3])
  assert titles(example_plots.worst_mistakes(population, make_images(population))) == [
    "✗ true 1, predicted 0 (p = 0.70)",
    "✓ true 1, predicted 1 (p = 0.31)",
    "✓ true 1, predicted 1 (p = 0.60)",
  ]


def test_two_outputs_predict_the_largest():
  population = with_probabilities(
    [0.45, 0.55], [0, 0], thresholds=[0.3], loss="categorical_cross_entropy"
  )
  assert titles(example_plots.worst_mistakes(population, make_images(population))) == [
    "✗ true 0, predicted 1 (p = 0.55)",
    "✓ true 0, predicted 0 (p = 0.55)",
  ]


def test_all_arms_means_their_average():
  population = with_probabilities([[0.2, 0.5], [0.6, 0.5]], [1, 1], thresholds=[0.2, 0.6])
  figure = example_plots.worst_mistakes(population, make_images(population))
  assert titles(figure) == ["✗ true 1, predicted 0 (p = 0.60)", "✓ true 1, predicted 1 (p = 0.50)"]
  assert figure.get_suptitle().startswith("mean of 2 arms")


def test_arms_that_diverged_do_not_predict():
  population = make_population(diverged=[(seed, 0, 2) for seed in range(4)])
  images = make_images(population)
  everything = example_plots.worst_mistakes(population, images)
  assert titles(everything) == titles(example_plots.worst_mistakes(population, images, arm="arm 1"))
  nothing = example_plots.worst_mistakes(population, images, arm="arm 0")
  assert [text.get_text() for text in nothing.texts] == [
    "Every seed diverged: there are no predictions."
  ]


def test_worst_mistakes_rejects_what_does_not_fit():
  population = make_population()
  images = make_images(population)
  with pytest.raises(InputError, match="unknown arm"):
    example_plots.worst_mistakes(population, images, arm="arm 9")
  with pytest.raises(InputError, match="num_images"):
    example_plots.worst_mistakes(population, images, num_images=0)
  for wrong in (images[1:], images[..., 0], np.repeat(images, 2, axis=-1)):
    with pytest.raises(ValueError, match="images must be"):
      example_plots.worst_mistakes(population, wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_stand_beside_their_original(channels):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 5, 4, channels)).astype(np.uint8)
  augmented = rng.random((2, 3, 5, 4, channels))
  figure = example_plots.augmented_images(images, augmented)
  places = sorted(figure.axes, key=lambda ax: (-ax.get_position().y0, ax.get_position().x0))
  expected = [image for k in range(2) for image in (images[k] / 255, *augmented[k])]
  for ax, image in zip(places, expected, strict=True):
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown.reshape(image.shape), image)
    assert channels == 3 or ax.images[0].get_clim() == (0, 1)
  assert [text.get_text() for text in figure.texts] == ["original", "augmented"]


def test_augmented_images_must_fit():
  images, augmented = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 3, 4, 4, 1))
  for wrong in ((images[:1], augmented), (images, augmented[..., :2, :]), (images[..., 0], images)):
    with pytest.raises(ValueError, match="images must be"):
      example_plots.augmented_images(*wrong)
  assert "no images" in message(example_plots.augmented_images(images[:0], augmented[:0]))
