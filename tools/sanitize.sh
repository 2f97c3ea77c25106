#!/bin/sh
# Tests the C++ with every access to memory and every operation checked: tools/sanitize.sh PYTHON
#
# A copy of the library is compiled with GCC's sanitizers of addresses and of undefined behaviour,
# which end the process at the first error. JAX itself is not checked.
set -e
python=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r jaxdl "$folder"
suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
include=$("$python" -c 'import jaxlib, os; print(os.path.join(jaxlib.__path__[0], "include"))')
g++ -shared -fPIC -std=c++17 -O1 -g -fno-omit-frame-pointer -fno-math-errno -ffp-contract=fast \
  -fsanitize=address,undefined -fno-sanitize-recover=all "-isystem$include" \
  jaxdl/cpu/ops.cc -o "$folder/jaxdl/cpu/_ops$suffix"
# Neither Python nor pytest may find the library that is not checked.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH="$folder" \
  "$python" -P -m pytest -o pythonpath="$folder" -p no:cacheprovider -s tests/cpu -k "step or product or shapes"
