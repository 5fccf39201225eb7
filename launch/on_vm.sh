#!/usr/bin/env bash
# On a host of the TPU, for tpu_vm.sh: mounts the disk where the run is kept on one,
# installs once, runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

disk=${DATA_DISK:-/dev/sdb} mount=${DATA_MOUNT:-/mnt/aprm} kept=()
if [[ ${WORKDIR:-} ]]; then
  mount=~/aprm kept=(gcsfs)
  mkdir -p "$mount"
elif ! mountpoint -q "$mount"; then
  sudo blkid "$disk" >/dev/null || sudo mkfs.ext4 -q "$disk"
  sudo mkdir -p "$mount"
  sudo mount "$disk" "$mount"
  sudo chown "$(id -u):$(id -g)" "$mount"
fi
if [[ ! -d ~/venv ]]; then
  python3 -m venv ~/venv.new
  ~/venv.new/bin/pip install --quiet '.[tpu]' "${kept[@]}" -c constraints.txt
  mv ~/venv.new ~/venv
fi
export HF_HOME="$mount/huggingface" XDG_CACHE_HOME="$mount/cache"
exec ~/venv/bin/python -m aprm_jax.main --workdir="${WORKDIR:-$mount/run}" "$@"
