#!/bin/sh
# Prints the path of the first supported Python that works, or fails with a message.
#   tools/find_python.sh [VERSION ...]     (default: 3.13 3.12 3.11 3.14)
# 3.14 comes last because the tests have not run on it. Without any of them, uv gets one if it is
# installed.
# A version manager may have a shim for a Python that is not installed, and a distribution's Python
# may lack venv, so each candidate is tried. PYTHON=... overrides the search.
set -u
any=
[ $# -gt 0 ] || { any=yes; set -- 3.13 3.12 3.11 3.14; }

# runs CANDIDATE [VERSION]: whether it is a Python with venv and that version (default: >= 3.11).
runs() {
  "$1" -c "
import ensurepip, ssl, sys, venv
version = '%d.%d' % sys.version_info[:2]
sys.exit(version != '${2:-}' if '${2:-}' else sys.version_info < (3, 11))" >/dev/null 2>&1
}

# Prints the path of the real interpreter; a shim may start another one in another folder.
resolve() { "$1" -c 'import sys; print(sys.executable)'; }

if [ -n "${PYTHON:-}" ]; then
  if runs "$PYTHON"; then
    resolve "$PYTHON"
    exit 0
  fi
  echo "error: PYTHON=$PYTHON is not a working Python >= 3.11 with the module venv" >&2
  exit 2
fi

for version in "$@"; do
  for candidate in "python$version" python3 python \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/python3 \
    "${HOME:-}/.local/share/uv/python/cpython-$version".*/bin/python3 \
    "/opt/homebrew/bin/python$version" "/usr/local/bin/python$version" "/usr/bin/python$version"; do
    if runs "$candidate" "$version"; then
      resolve "$candidate"
      exit 0
    fi
  done
done
if [ -n "$any" ] && command -v uv >/dev/null 2>&1; then
  echo "found no working Python $*; uv installs Python $1" >&2
  if uv python install "$1" >&2 && candidate=$(uv python find "$1") && runs "$candidate" "$1"; then
    resolve "$candidate"
    exit 0
  fi
fi
echo "error: found no working Python $* with the module venv; install one of them (on Debian:" \
  "apt install python3 python3-venv), or uv, which gets one, or set PYTHON=/path/to/python" >&2
exit 2
