"""Data by name: .npz files, tables, folders of images, functions; and what is refused of them."""

import io
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl import data
from jaxdl.data import memory, table
from jaxdl.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """The current folder."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


# ----------------------------------------------------------------------------------------------
# .npz


IMAGES = {
  "x_train": np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2),
  "y_train": np.array([0, 1, 2] * 2),
  "x_test": np.zeros((3, 2, 2), np.uint8),
  "y_test": np.array([2, 1, 0]),
}


def test_arrays_with_keras_keys(folder):
  np.savez_compressed("a.npz", **IMAGES)
  dataset = data.load("a.npz")
  expected = data.from_arrays(*IMAGES.values(), name="a.npz")
  assert dataset.checksum == expected.checksum
  assert dataset.description == "a.npz: 9 images of 2 x 2 x 1, 3 classes (3 each); " + (
    "training 6, test 3"
  )
  for name in (f"{folder}/a.npz", "./a.npz", "a.npz()"):
    assert data.load(name).checksum == expected.checksum
  assert data.load("a.npz", folder.parent).checksum == expected.checksum
  (folder / "below").mkdir()
  assert data.load(f"{folder.name}/a.npz", folder.parent).checksum == expected.checksum


def test_arrays_with_a_validation_set_and_without_a_test_set():
  x, y = np.arange(20.0).reshape(10, 2), np.array(["a", "b"] * 5)
  np.savez("a.npz", x_train=x, y_train=y, x_val=x[:2], y_val=y[:2], class_names=["b", "a"])
  dataset = data.load("a.npz(test_fraction=0.4)")
  assert tuple(map(len, dataset.splits)) == (6, 2, 4)
  assert dataset.class_names == ("b", "a")


def test_refused_npz_files(folder, monkeypatch):
  def refused(message, content=b"", **arrays):
    if arrays:
      np.savez_compressed("a.npz", **arrays)
    else:
      (folder / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=f"^a.npz: {message}"):
      data.load("a.npz")

  refused("is no .npz file of arrays, or is damaged: BadZipFile")
  refused("is no .npz file of arrays, or is damaged", b"PK\x03\x04" + bytes(100))
  refused("has no x_train and no y_train", x_test=np.zeros(3))
  refused("unknown array 'x_tets'; did you mean 'x_test'", **IMAGES, x_tets=np.zeros(3))
  refused("x_val is missing", **IMAGES, y_val=np.zeros(3))
  refused(r"x_train\[1, 0\] is nan", x_train=np.array([[0], [np.nan]]), y_train=np.arange(2))
  boom = np.array([{}, {}], object)
  refused("is no .npz file.*: ValueError: Object arrays", x_train=boom, y_train=np.arange(2))
  monkeypatch.setattr(memory, "machine_bytes", lambda: 10**6)
  message = r"has arrays of 1,000,\d\d\d bytes, and this machine has 1,000,000 bytes of memory"
  refused(message, x_train=np.zeros((10, 10**5), np.uint8), y_train=np.arange(10))


def test_no_more_is_unpacked_than_an_archive_says(folder):
  """An archive that gives a wrong size is damaged."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
    for name in ("x_train", "y_train"):
      part = io.BytesIO()
      np.save(part, np.zeros(10**6, np.uint8))
      file.writestr(f"{name}.npy", part.getvalue())
  content, size = stream.getvalue(), (10**6 + 128).to_bytes(4, "little")
  (folder / "a.npz").write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
  with pytest.raises(InputError, match=r"a\.npz: is no .npz file of arrays, or is damaged"):
    data.load("a.npz")


def test_the_memory_of_a_machine_is_known():
  assert 2**27 < memory.machine_bytes() < 2**50


# ----------------------------------------------------------------------------------------------
# Tables


def write(text, file="t.csv", encoding="utf-8"):
  with open(file, "w", encoding=encoding, newline="") as stream:
    stream.write(textwrap.dedent(text).lstrip())


ROWS = """
  age,color,weight,species
  1,red,0.5,cat
  2,blue,0.5,dog
  3,red,0.5,cat
  5,green,0.5,dog
  9,red,0.5,cat
  """


@pytest.fixture
def rows():
  write(ROWS)


def test_numbers_are_standardised_on_the_training_part(rows):
  dataset = data.load("t.csv(target=species)")
  assert dataset.description == (
    "t.csv: 5 examples with 5 numbers, 2 classes (2 to 3 each); training 4, test 1; 2 columns of "
    "numbers, standardised; categories: color (3); the test set is a share of 0.2, drawn by class "
    "with seed 0"
  )
  assert dataset.class_names == ("cat", "dog")
  ages = np.array([1.0, 2, 3, 5, 9])
  colors = ["red", "blue", "red", "green", "red"]
  (drawn,) = data.splits.draw(5, 1, np.array([0, 1, 0, 1, 0])).nonzero()[0]
  kept = np.delete(ages, drawn)
  for split in (dataset.train, dataset.test):
    for row, label in zip(split.inputs, split.targets, strict=True):
      age = row[0] * kept.std() + kept.mean()
      place = int(np.argmin(abs(ages - age)))
      assert age == pytest.approx(ages[place], abs=1e-5)
      assert row[1:4].tolist() == [colors[place] == color for color in ("blue", "green", "red")]
      assert row[4] == 0  # it is always the same
      assert label == place % 2


@pytest.mark.parametrize(
  ("cells", "options", "names"),
  [
    ("abab", "", ("a", "b")),
    (["3", "10", "3", "10"], "", ("3", "10")),
    (["0.5", "1", "2", "3"], "", ()),
    (["1", "2", "3", "1"], ", task=regression", ()),
    (["0.5", "1.0", "0.5", "1.0"], ", task=classification", ("0.5", "1.0")),
    (map(str, range(30)), ", task=regression", ()),
    ([str(n % 25) for n in range(50)], ", task=classification", tuple(map(str, range(25)))),
  ],
)
def test_targets_of_a_table(cells, options, names):
  write("x,y\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
  dataset = data.load(f"t.csv(target=y{options}, test_fraction=0.5)")
  assert dataset.class_names == names
  assert dataset.train.targets.dtype == (np.int32 if names else np.float32)


def test_forms_of_tables(rows):
  expected = data.load("t.csv(target=species, drop=color)")
  assert expected.train.inputs.shape == (4, 2)
  for separator in ";\t":
    write(ROWS.replace(",", separator))
    assert data.load("t.csv(target=species, drop=(color,))").checksum == expected.checksum
  write(ROWS.replace("\n", "\r\n\r\n").replace(",", " , "), encoding="utf-8-sig")
  assert data.load('t.csv(target="species", drop=["color"])').checksum == expected.checksum
  write('"the age, in years",b\n1,x\n2,y\n"3",x\n4,y\n')
  assert len(data.load("t.csv(target=b, test_fraction=0.5)").train) == 2
  dataset = data.load("t.csv(target='the age, in years', task=regression)")
  assert sorted(np.concatenate([s.targets for s in dataset.splits])) == [1, 2, 3, 4]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ("", r"needs \(target=COLUMN\); its columns: age, color, weight, species"),
    ("(target=specie)", "has no column 'specie'; its columns: age"),
    ("(target=species, drop=id)", "has no column 'id'"),
    ("(target=species, drop=3)", "has no column 3"),
    ("(target=species, drop=(3, 4))", "has no column 3"),
    ("(target=species, task=3)", "unknown task 3"),
    ("(target=species, drop=(age, color, weight))", "has no column besides the target"),
    ("(target=species, task=sort)", "unknown task 'sort'.*known: classification, regression"),
    ("(target=species, task=regression)", "has 'cat' in row 1 of 'species', which is no number"),
    ("(tagret=species)", "unknown option 'tagret'; did you mean 'target'"),
    ("(species)", r"options are written as \(target=...\)"),
    ("(target=the species)", r"options are written as \(target=...\)"),
    ("(target=open('x'))", r"options are written as \(target=...\)"),
    ("(**{'target': 'species'})", "unknown option"),
    ("(target=species, test_fraction=2)", "the test fraction must be"),
    ("(target=species, test_fraction=much)", "the test fraction must be"),
  ],
)
def test_refused_options(rows, options, message):
  with pytest.raises(InputError, match=rf"^t\.csv: {message}"):
    data.load(f"t.csv{options}")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "has no rows below its header"),
    ("x,y\n", "has no rows below its header"),
    ("x,,y\n1,2,3\n", "has a column without a name, number 2"),
    ("x,x,y\n1,2,3\n", "has two columns 'x'"),
    ("x,y\n1,a\n2\n", "has 1 cells in row 2, and 2 columns"),
    ("x,y\n1,a\n\n2,b,c\n", "has 3 cells in row 2, and 2 columns"),
    ("x,y\n1,a\n,b\n", "has no value of 'x' in row 2"),
    ("x,y\n1,a\n2,NA\n", "has no value of 'y' in row 2"),
    ("x,y\n1,a\ninf,b\n", "has inf in row 2 of 'x'"),
    ("x,y\n1,a\n2,b\n-1e300,b\n", "has -1e\\+300 in row 3 of 'x', which is no number of float32"),
    ("x,y\n1,0.5\n2,1e999\n", "has inf in row 2 of 'y'"),
    ('x,y\n1,"a\n', "cannot be read as a table: Error"),
    ("x,y\n1,a\n2,a\n3,a\n", "class_names must be two or more"),
    ("x,y\n" + "".join(f"{n}x,{n % 2}\n" for n in range(101)), "has 101 different texts in 'x'"),
    ("x,y\n" + "".join(f"{n},{n}\n" for n in range(21)), "has 21 different integers in 'y': say"),
  ],
)
def test_refused_tables(text, message):
  write(text)
  with pytest.raises(InputError, match=rf"^t\.csv: {message}"):
    data.load("t.csv(target=y)")


def test_a_table_that_is_no_text(folder):
  (folder / "t.csv").write_bytes(b"x,y\n\xff\xfe,1\n")
  with pytest.raises(InputError, match=r"t\.csv: cannot be read as a table: UnicodeDecodeError"):
    data.load("t.csv(target=y)")


@given(
  st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=5, max_size=30, unique=True
  ),
  st.floats(-1e6, 1e6),
)
def test_numbers_are_read_as_they_are_written(tmp_path_factory, pairs, constant):
  """Standardised on the training part; one that is always the same becomes 0, up to rounding."""
  file = tmp_path_factory.getbasetemp() / "numbers.csv"
  write("x,c,y\n" + "".join(f"{x!r},{constant!r},{y!r}\n" for x, y in pairs), file)
  dataset = table.load(file, target="y", task="regression")
  found = {float(y) for split in dataset.splits for y in split.targets}
  assert found == {float(np.float32(y)) for _, y in pairs}
  x, c = dataset.train.inputs.T
  assert abs(c).max() < 1e-6
  assert abs(x.mean()) < 1e-3
  assert x.std() == pytest.approx(1, abs=1e-3) or abs(x).max() < 1e-6


# ----------------------------------------------------------------------------------------------
# Folders of images


def paint(path, size=(4, 3), color=(10, 20, 30), mode="RGB"):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", size, color).convert(mode).save(path)


def test_a_folder_per_class(folder):
  for i in range(10):
    paint(folder / "pets" / ("cat", "dog")[i % 2] / f"{i}.png", color=(i, 100 + i, 200))
  (folder / "pets" / "cat" / ".hidden").write_text("ignored")
  dataset = data.load("pets/")
  assert dataset.description == (
    "pets: 10 images of 3 x 4 x 3, 2 classes (5 each); training 8, test 2; the test set is a share "
    "of 0.2, drawn by class with seed 0"
  )
  assert dataset.class_names == ("cat", "dog")
  seen = set()
  for split in dataset.splits:
    for image, label in zip(split.inputs, split.targets, strict=True):
      (pixel,) = {tuple(pixel) for row in image.tolist() for pixel in row}
      assert pixel == (pixel[0], 100 + pixel[0], 200)
      assert label == pixel[0] % 2
      seen.add(pixel[0])
  assert seen == set(range(10))
  for name in ("./pets", f"{folder}/pets/", "./pets()", "pets/(test_fraction=0.2)"):
    assert data.load(name).checksum == dataset.checksum


def test_splits_in_folders_and_grey_images(folder):
  for split, count in (("train", 3), ("val", 2), ("test", 1)):
    for i in range(count):
      for name in ("a", "b"):
        paint(folder / "p" / split / name / f"{i}.png", color=(7 * i,) * 3, mode="L")
  dataset = data.load("p/")
  assert tuple(map(len, dataset.splits)) == (6, 4, 2)
  assert dataset.train.inputs.shape == (6, 3, 4, 1)
  assert sorted(dataset.train.inputs[:, 0, 0, 0].tolist()) == [0, 0, 7, 7, 14, 14]
  assert dataset.train.targets.tolist() != [0, 0, 0, 1, 1, 1]  # shuffled
  assert dataset.test.targets.tolist() == [0, 1]


def test_images_of_other_sizes_and_kinds(folder):
  paint(folder / "p" / "a" / "1.png", (8, 8), (255, 0, 0), "P")
  paint(folder / "p" / "a" / "2.png", (4, 4), (9, 9, 9), "L")
  paint(folder / "p" / "b" / "1.png", (2, 6), (0, 0, 255), "RGBA")
  paint(folder / "p" / "b" / "2.bmp", (8, 8), (0, 0, 255))
  with pytest.raises(InputError, match=r"^p/: has images of 8 x 8 .* and 4 x 4 .*resize=PIXELS"):
    data.load("p/")
  for resize, shape in (("5", (5, 5, 3)), ("(2, 7)", (2, 7, 3))):
    dataset = data.load(f"p/(resize={resize}, test_fraction=0.5)")
    assert dataset.train.inputs.shape[1:] == shape
    assert f"resized to {shape[0]} x {shape[1]}" in dataset.description
    for split in dataset.splits:
      for image, label in zip(split.inputs, split.targets, strict=True):
        assert image[0, 0].tolist() in ([[255, 0, 0], [9, 9, 9]], [[0, 0, 255]])[label]
        assert (image == image[0, 0]).all()


def test_refused_folders(folder, monkeypatch):
  def refused(message, name="p/"):
    with pytest.raises(InputError, match=f"^{message}") as error:
      data.load(name)
    assert "\n" not in str(error.value)

  refused("there is no folder p$")
  (folder / "p").mkdir()
  refused("p/: needs a subfolder of images for each of two or more classes")
  (folder / "p" / "a").mkdir()
  refused("p/: has no image in .*/p/a")
  paint(folder / "p" / "a" / "1.png")
  refused("p/: needs a subfolder of images for each")
  paint(folder / "p" / "b" / "1.png")
  for resize in ("0", "-3", "True", "(3, 3, 3)", "big", "100000"):
    refused("p/: resize must be pixels", f"p/(resize={resize})")
  (folder / "p" / "b" / "2.png").write_bytes((folder / "p" / "b" / "1.png").read_bytes()[:50])
  refused("p/: has a file that is no image, or is damaged: .*/p/b/2.png: ")
  (folder / "p" / "b" / "2.png").write_text("notes")
  refused("p/: has a file that is no image, or is damaged: .*/p/b/2.png: UnidentifiedImageError")
  paint(folder / "p" / "b" / "2.png", mode="I;16")
  refused(r"p/: has an image of Pillow's mode I;16: .*/p/b/2\.png")
  paint(folder / "p" / "b" / "2.png")
  monkeypatch.setattr(memory, "machine_bytes", lambda: 107)
  refused("p/: has arrays of 108 bytes, and this machine has 107 bytes")
  monkeypatch.undo()
  monkeypatch.chdir(folder)
  (folder / "p" / "notes.txt").write_text("notes")
  refused("p/: has a file where there should be folders of classes: .*/notes.txt")


def test_a_test_class_without_training_images(folder):
  for path in ("train/a", "train/b", "test/a", "test/c"):
    paint(folder / "p" / path / "1.png")
  with pytest.raises(InputError, match=r"^p/: has no training images of the class 'c'"):
    data.load("p/")


def test_an_image_that_would_fill_the_memory(folder, monkeypatch):
  for name in "ab":
    paint(folder / "p" / name / "1.png", (100, 100))
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
  with pytest.raises(InputError, match=r"p/: has a file that is no image.*DecompressionBomb"):
    data.load("p/(resize=4)")


# ----------------------------------------------------------------------------------------------
# Functions


@pytest.fixture
def mine(folder, monkeypatch):
  """A module of the user's own."""
  (folder / "mine_of_test_files.py").write_text(
    textwrap.dedent("""
      import numpy as np
      from jaxdl import data

      X, Y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2

      def two(scale=1.0): return scale * X, Y
      def four(): return [X, Y, X[:4], Y[:4]]
      def keras(): return (X, Y), (X[:4], Y[:4])
      def named(): return {"x_train": X, "y_train": Y, "validation": 0.25, "preprocess": two_x}
      def wrong(): return {"x": X}
      def empty(): return {}
      def own(): return data.from_arrays(X, Y, name="own")
      def fails(): raise OSError("no disk")
      def text(): return "text"
      def lengths(): return X, Y[:3]
      def two_x(x): return 2 * x
      NUMBER = 3
    """)
  )
  monkeypatch.syspath_prepend(folder)
  yield "mine_of_test_files"
  sys.modules.pop("mine_of_test_files", None)


def test_what_functions_return(mine):
  sizes = {
    name: tuple(map(len, data.load(f"{mine}:{name}").splits))
    for name in ("two", "two()", "four()", "keras()", "named()", "own()")
  }
  assert sizes == {
    "two": (8, 0, 2),
    "two()": (8, 0, 2),
    "four()": (10, 0, 4),
    "keras()": (10, 0, 4),
    "named()": (6, 2, 2),
    "own()": (8, 0, 2),
  }
  assert data.load(f"{mine}:own()").name == "own"
  assert data.load(f"{mine}:named()").name == f"{mine}:named()"
  doubled = data.load(f"{mine}:two(scale=2.0)")
  np.testing.assert_array_equal(doubled.train.inputs, 2 * data.load(f"{mine}:two").train.inputs)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("wrong()", "unknown key 'x'; known: class_names"),
    ("empty()", "x_train is missing"),
    ("fails()", "OSError: no disk"),
    ("text()", "returns 'text': neither arrays"),
    ("lengths()", "x_train has 10 rows, but y_train has 3"),
    ("NUMBER", "is not a function"),
    ("missing()", "cannot be imported"),
    ("two(size=3)", "does not fit its signature"),
    ("two(scale=open('x'))", "is not of the form"),
    ("two(", "is not of the form"),
  ],
)
def test_refused_functions(mine, name, message):
  with pytest.raises(InputError, match=rf"{mine}:{name.partition('(')[0]}.*{message}"):
    data.load(f"{mine}:{name}")


@given(st.text("ab.:/~(),=[]% npzcsv1", max_size=30))
def test_any_text_is_a_dataset_or_refused_in_one_line(text):
  from jaxdl.data import tfds

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tfds, "load", lambda *_: None)
    try:
      data.load(text)
    except InputError as error:
      message = str(error)
      assert message.isprintable()
