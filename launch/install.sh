#!/usr/bin/env bash
# Makes ~/venv with this package and extras of it; again where either has changed. Images
# of TPU VMs have Python 3.10, which is too old: then uv brings a newer one.
#
#   bash launch/install.sh tpu,cloud
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() { # one of 3.11 or newer that can make environments
  local name
  for name in python3.12 python3.13 python3.11 python3; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

bring_python() {
  local uv
  if ! uv=$(command -v uv); then
    python3 -m pip install --quiet --target ~/uv uv -c constraints.txt >&2 || return
    uv=~/uv/bin/uv
  fi
  export UV_PYTHON_PREFERENCE=only-managed
  "$uv" python install 3.12 >&2 && "$uv" python find 3.12
}

python=$(find_python || bring_python) || {
  printf '%s\n' "install.sh: error: aprm_jax needs Python 3.11 or newer, with venv; this \
machine has $(python3 --version 2>&1), and uv could not bring one" >&2
  exit 1
}
made=$(printf '%s\n' "$1" "$python" | cat - pyproject.toml constraints.txt | sha256sum)
[[ -f ~/venv/made && $(<~/venv/made) == "$made" ]] && exit
rm -rf ~/venv
"$python" -m venv ~/venv
~/venv/bin/python -m pip install --quiet ".[$1]" -c constraints.txt
printf '%s\n' "$made" >~/venv/made
