"""Compiles the optional part of jaxdl that is C++; all else about the package is in pyproject.toml.

It includes headers of the jaxlib that is installed, so there is nothing to compile before that is.
Where it cannot be compiled the package is installed without it: see jaxdl/cpu.
"""

import importlib.util
import pathlib
import platform

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
  """Leaves no library of an older source in the place of one that does not compile."""

  def build_extension(self, ext):
    """Compiles an extension, from nothing."""
    (pathlib.Path(__file__).parent / self.get_ext_filename(ext.name)).unlink(missing_ok=True)
    super().build_extension(ext)


_jaxlib = importlib.util.find_spec("jaxlib")
_is_x86 = platform.machine() in ("x86_64", "AMD64")
_extensions = []
if _jaxlib and _is_x86 and platform.system() != "Windows":
  _include = pathlib.Path(_jaxlib.origin).parent / "include"
  _extensions.append(
    Extension(
      "jaxdl.cpu._ops",
      ["jaxdl/cpu/ops.cc"],
      extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-mprefer-vector-width=512",
        # What the compiler needs to use vectors: nobody asks for the error number of a root, and
        # product and sum are rounded once, as XLA does it.
        "-fno-math-errno",
        "-ffp-contract=fast",
        # Headers of others, whose warnings are not ours.
        f"-isystem{_include}",
      ],
      optional=True,
    )
  )

setup(ext_modules=_extensions, cmdclass={"build_ext": BuildExt})
