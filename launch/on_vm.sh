#!/usr/bin/env bash
# On a host of the TPU, for tpu_vm.sh: installs, mounts what the run needs, and starts it
# apart from the ssh session, which shows what it prints: a link that is cut ends nothing.
# The next call shows the same run, if it still runs, or if START is what it was started
# with. Ends with the run's exit code, or with 97 where the host is not fit for a run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run=~/aprm-run # start, asked, pid, log, code and stop of the newest run

fail() {
  printf 'on_vm.sh: error: %s\n' "$1" >&2
  exit 97
}

detached() { # the run itself; its exit code is left in a file
  local code=0
  trap : TERM # to all processes at a shutdown: the run saves, and its code is noted
  bash -c 'echo $$ >"$0/pid" && exec "$@"' "$run" "$@" || code=$?
  echo "$code" >"$run/code.new"
  mv "$run/code.new" "$run/code"
}

runs() { # the run holds the lock as long as it lives
  ! flock --nonblock "$run/alive" true
}

prepare() { # sets `workdir`
  local extras=tpu mount=${DATA_MOUNT:-/mnt/aprm} cache=
  [[ ! ${WORKDIR:-} ]] || extras+=,cloud
  bash launch/install.sh "$extras" || exit 97
  if [[ ${SHARE:-} ]]; then
    mount_share "$mount"
  elif [[ ${DISK:-} ]]; then
    mount_disk "$mount"
  else
    mount=~/aprm
    mkdir -p "$mount"
  fi
  workdir=${WORKDIR:-$mount/${RUN:-run}}
  [[ ! ${SHARE:-} ]] || cache=~/aprm # of each host its own
  export HF_HOME="${cache:-$mount}/huggingface" XDG_CACHE_HOME="${cache:-$mount}/cache"
}

mount_disk() {
  local mount=$1 disk="" name ids=${DISK_IDS:-/dev/disk/by-id}
  mountpoint -q "$mount" && return
  # By its name, or as the first disk beside the one with the system.
  for name in "google-$DISK" google-persistent-disk-1; do
    [[ $disk || ! -e $ids/$name ]] || disk=$ids/$name
  done
  disk=${DATA_DISK:-$disk}
  [[ $disk ]] || fail "the disk $DISK is not in $ids, which has: $(echo "$ids"/*)"
  # Only a disk that is known to be empty is formatted.
  sudo blkid "$disk" >/dev/null || sudo mkfs.ext4 -q "$disk"
  sudo mkdir -p "$mount"
  sudo mount "$disk" "$mount"
  sudo chown "$(id -u):$(id -g)" "$mount"
}

mount_share() {
  mountpoint -q "$1" && return
  command -v mount.nfs >/dev/null || sudo apt-get install --yes --quiet nfs-common
  sudo mkdir -p "$1"
  sudo mount -t nfs "$SHARE" "$1"
  sudo chown "$(id -u):$(id -g)" "$1"
}

begin() {
  rm -f "$run/code" "$run/pid" "$run/stop"
  [[ ! -f $run/log ]] || mv "$run/log" "$run/log.before"
  printf '%s\n' "${START:-}" >"$run/start"
  printf '%s\n' "$asked" >"$run/asked"
  : >"$run/log" # whoever follows it may be there before the run
  setsid flock --nonblock "$run/alive" bash launch/on_vm.sh detached \
    ~/venv/bin/python -u -m aprm_jax.main --workdir="$workdir" "$@" \
    >>"$run/log" 2>&1 </dev/null 8>&- &
  echo $! >"$run/holder"
}

follow() { # $1: the line of the log to begin at, as of `tail -n`
  tail -n "$1" -f -s 1 --pid="$(<"$run/holder")" "$run/log"
  [[ -f $run/code ]] || {
    echo "on_vm.sh: error: the run was ended from outside, and left no exit code" >&2
    exit 1
  }
  # As after Ctrl-C: nobody is to start it again.
  [[ ! -f $run/stop || $(<"$run/code") -ne 143 ]] || exit 130
  exit "$(<"$run/code")"
}

if [[ ${1:-} == detached ]]; then
  detached "${@:2}"
  exit
fi
mkdir -p "$run"
exec 8>"$run/turn" # of several calls one decides what is started
flock 8
asked=$(printf '%q ' "${WORKDIR:-}" "$@")
from=+1
if runs; then
  [[ $asked == "$(<"$run/asked")" ]] ||
    fail "another run is at work here; tpu_vm.sh stop ends it, and it saves"
  from=50
elif [[ ${START:-} && -f $run/code && $START == "$(<"$run/start")" ]]; then
  from=50 # it ended while nobody looked
else
  prepare
  begin "$@"
fi
exec 8>&-
follow "$from"
