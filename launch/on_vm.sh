#!/usr/bin/env bash
# On the TPU VM, for tpu_vm.sh: mounts the disk, installs once, runs in its folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

disk=${DATA_DISK:-/dev/sdb} mount=${DATA_MOUNT:-/mnt/aprm}
if ! mountpoint -q "$mount"; then
  sudo blkid "$disk" >/dev/null || sudo mkfs.ext4 -q "$disk"
  sudo mkdir -p "$mount"
  sudo mount "$disk" "$mount"
  sudo chown "$(id -u):$(id -g)" "$mount"
fi
if [[ ! -d ~/venv ]]; then
  python3 -m venv ~/venv.new
  ~/venv.new/bin/pip install --quiet '.[tpu]' -c constraints.txt
  mv ~/venv.new ~/venv
fi
export HF_HOME="$mount/huggingface" XDG_CACHE_HOME="$mount/cache"
exec ~/venv/bin/python -m aprm_jax.main --workdir="$mount/run" "$@"
