#!/bin/sh
# Checks and measures jaxdl on a machine with a GPU, in at most ten minutes; see docs/gpu.md.
#   tools/gpu_check.sh --out=DIR --data=FILE [--packages=DIR] [--wheels=DIR] [--seconds=540]
#   tools/gpu_check.sh --pack=DIR --data_dir=TFDS        makes FILE and a folder of packages
#   tools/gpu_check.sh --device=cpu --scale=tiny         the same parts in small, without a GPU
# It takes the first Python whose JAX has the device; PYTHON=... overrides the search. Packages that
# this Python lacks come from --packages, a folder of them, or --wheels, a folder of wheels.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
device=gpu pack= wheels= packages=
for argument; do
  shift
  case $argument in
    --wheels=*) wheels=${argument#*=}; continue ;;
    --packages=*) packages=$(cd "${argument#*=}" && pwd); continue ;;
    --device=*) device=${argument#*=} ;;
    --pack=*) pack=yes ;;
  esac
  set -- "$@" "$argument"
done

finds_device() {
  JAX_PLATFORMS= XLA_PYTHON_CLIENT_PREALLOCATE=false "$1" -c "
import jax
device = '$device'
assert '$pack' or device == 'cpu' or jax.devices(device)" >/dev/null 2>&1
}

python=
for candidate in ${PYTHON:+"$PYTHON"} "$root/.venv/bin/python" python3 python; do
  if command -v "$candidate" >/dev/null && finds_device "$candidate"; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: found no Python with a JAX that has a $device: tried ${PYTHON:-}" \
    ".venv/bin/python, python3 and python; set PYTHON, or install 'jax[cuda13]' or 'jax[cuda12]'" >&2
  exit 2
fi

if [ -n "$wheels" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" "$wheels"/*.whl
  packages=${packages:+$packages:}$site
fi
# Nothing of the machine's memory is taken before it is needed, so that several processes fit.
XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false} \
  PYTHONUNBUFFERED=1 PYTHONPATH="$root${packages:+:$packages}" \
  "$python" -m experiments.gpu_check "$@"
