#!/usr/bin/env bash
# Runs a config on one TPU VM: asks for the VM as a queued resource, installs, starts the
# run, shows what it prints, and does so again after a pre-emption until the run ends.
#
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh --config=configs/quickstart.py
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh down    # the VM; the disk stays
#
# What the run keeps is on a persistent disk of its own, which outlives the VM: the same
# command goes on from there. TYPE (v5litepod-8), RUNTIME, DISK (NAME-disk), DISK_GB (200),
# SPOT (1) and WAIT (seconds between looks, 30) may be set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'tpu_vm.sh: error: %s\n' "$1" >&2
  exit 2
}

for name in PROJECT ZONE NAME; do
  [[ -n ${!name:-} ]] || fail "$name is not set"
done
TYPE=${TYPE:-v5litepod-8}
case $TYPE in
  v5litepod-1 | v5litepod-4 | v5litepod-8) RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} ;;
  v6e-1 | v6e-4 | v6e-8) RUNTIME=${RUNTIME:-v2-alpha-tpuv6e} ;;
  v5p-8) RUNTIME=${RUNTIME:-v2-alpha-tpuv5} ;;
  *) fail "TYPE=$TYPE is not a TPU of one host, which is what a run takes: \
v5litepod-1, -4 or -8, v6e-1, -4 or -8, v5p-8" ;;
esac
DISK=${DISK:-$NAME-disk} DISK_GB=${DISK_GB:-200} SPOT=${SPOT:-1} WAIT=${WAIT:-30}
place=(--zone="$ZONE" --project="$PROJECT")
resources=(gcloud compute tpus queued-resources)

state() { # ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; nothing where there is none
  "${resources[@]}" describe "$NAME" "${place[@]}" --format='value(state.state)' \
    2>/dev/null || true
}

down() {
  "${resources[@]}" delete "$NAME" "${place[@]}" --force --quiet
}

ask() {
  local spot=()
  [[ $SPOT == 1 ]] && spot=(--spot)
  gcloud compute disks describe "$DISK" "${place[@]}" >/dev/null 2>&1 ||
    gcloud compute disks create "$DISK" "${place[@]}" --size="${DISK_GB}GB" \
      --type=pd-balanced
  "${resources[@]}" create "$NAME" "${place[@]}" --node-id="$NAME" \
    --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "${spot[@]}" \
    --data-disk="source=projects/$PROJECT/zones/$ZONE/disks/$DISK,mode=read-write"
}

ready() { # waits until the VM is there; what was taken away is asked for again
  local now
  while true; do
    now=$(state)
    case $now in
      ACTIVE) return ;;
      "") ask ;;
      SUSPENDED | SUSPENDING | FAILED)
        printf 'tpu_vm.sh: %s is %s: asking again\n' "$NAME" "$now"
        down
        ;;
      *) printf 'tpu_vm.sh: %s is %s\n' "$NAME" "$now" ;;
    esac
    sleep "$WAIT"
  done
}

remote() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --command="$1"
}

attempt() { # installs what is committed here, and runs; its exit code is the run's
  local archive quoted
  archive=$(mktemp)
  git archive --format=tar.gz --output="$archive" HEAD || return 2
  gcloud compute tpus tpu-vm scp "$archive" "$NAME:aprm_jax.tar.gz" "${place[@]}" ||
    return 255
  rm -f "$archive"
  quoted=$(printf '%q ' "$@")
  remote "mkdir -p aprm_jax && tar -xzf aprm_jax.tar.gz -C aprm_jax &&
    bash aprm_jax/launch/on_vm.sh $quoted"
}

if [[ ${1:-} == down ]]; then
  down
  exit
fi
[[ $# -gt 0 ]] || fail "no --config=FILE"
unreached=0 # in a row, of a VM that is said to be there
while true; do
  ready
  code=0
  attempt "$@" || code=$?
  [[ $code -eq 0 ]] && break
  # The run's own failure leaves the VM as it is; a pre-emption takes it. Between the
  # two the VM is said to be there, and ssh or a SIGTERM says otherwise: a while.
  if [[ $(state) != ACTIVE ]]; then
    unreached=0
  elif [[ ($code -ne 255 && $code -ne 143) || $((unreached += 1)) -ge 20 ]]; then
    printf 'tpu_vm.sh: the run ended with %d; the VM is still there (down ends it)\n' \
      "$code" >&2
    exit "$code"
  fi
  printf 'tpu_vm.sh: %s was taken away or lost: again\n' "$NAME"
  sleep "$WAIT"
done
down
printf 'tpu_vm.sh: done; results are on the disk %s\n' "$DISK"
