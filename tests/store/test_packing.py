"""Arrays as bytes: they come back whole, or are refused."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from jaxdl.store import packing

_ARRAYS = st.dictionaries(
  st.text("abc/xyz019 é", min_size=1, max_size=12).filter(lambda name: name != "sha256"),
  st_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
  ),
  max_size=4,
)


def _equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(a[name], b[name])


@given(_ARRAYS)
def test_arrays_come_back(arrays):
  _equal(packing.unpack(packing.pack(arrays, "me"), "me"), arrays)


@given(_ARRAYS, st.data())
@settings(max_examples=200)
def test_damage_is_found_or_does_not_matter(arrays, data):
  """One bit, or everything after some byte: the arrays are the same, or refused."""
  content = bytearray(packing.pack(arrays, "me"))
  place = data.draw(st.integers(0, len(content) - 1))
  if data.draw(st.booleans()):
    content[place] ^= 1 << data.draw(st.integers(0, 7))
  else:
    del content[place:]
  try:
    found = packing.unpack(bytes(content), "me")
  except ValueError:
    return
  _equal(found, arrays)


@given(st.binary(max_size=300))
def test_strange_bytes_are_refused_in_one_line(content):
  with pytest.raises(ValueError, match=":") as caught:
    packing.unpack(content, "me")
  assert "\n" not in str(caught.value)


def _archive(shape="(3,)", compression=zipfile.ZIP_STORED, size=24):
  """Returns an .npz file of one array of 24 bytes, of which header and directory may say more."""
  stream = io.BytesIO()
  header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
  content = b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(size)
  with zipfile.ZipFile(stream, "w", compression) as archive:
    archive.writestr("x.npy", content)
  return stream.getvalue()


def test_what_unpacks_to_more_than_it_says_takes_no_memory():
  """Compressed zeros, an array that is larger than its file, a part larger than the archive."""
  with packing.arrays_in(io.BytesIO(_archive())) as arrays:
    assert arrays["x"].tolist() == [0, 0, 0]
  sound = _archive()
  # The size of the part, compressed and not, where the directory of the archive says it.
  place = sound.rindex(b"PK\x01\x02") + 20
  large = sound[:place] + (2**30).to_bytes(4, "little") * 2 + sound[place + 8 :]
  bomb = _archive("(12500000,)", zipfile.ZIP_DEFLATED, 10**8)
  assert len(bomb) < 10**6
  tracemalloc.start()
  for content, message in (
    (bomb, "it is compressed"),
    (_archive("(1250000000,)"), "is larger than the file"),
    (large, "parts are larger than the file"),
  ):
    with pytest.raises(ValueError, match=message):
      packing.unpack(content, "me")
  assert tracemalloc.get_traced_memory()[1] < 10**7
  tracemalloc.stop()


def test_nothing_that_is_read_can_run_code():
  class Evil:
    def __reduce__(self):
      return print, ("code of a file has run",)

  stream = io.BytesIO()
  np.savez(stream, sha256=np.zeros(32, np.uint8), x=np.array([Evil()], object))
  with pytest.raises(ValueError, match="allow_pickle=False"):
    packing.unpack(stream.getvalue(), "me")
