#!/usr/bin/env bash
# Runs a config on a TPU VM or a pod of them: asks for it as a queued resource, installs,
# starts the run on every host, shows what they print, and does so again after a
# pre-emption until the run ends.
#
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh --config=configs/quickstart.py
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh down    # the VM; the disk stays
#   TYPE=v5litepod-64 WORKDIR=gs://b/run ... launch/tpu_vm.sh --config=FILE   # a pod
#
# What the run keeps outlives the VM, and the same command goes on from there: it is on a
# persistent disk of its own, or at WORKDIR (gs://BUCKET/FOLDER), which a pod needs. TYPE
# (v5litepod-8), RUNTIME, DISK (NAME-disk), DISK_GB (200), SPOT (1) and WAIT (seconds
# between looks, 30) may be set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'tpu_vm.sh: error: %s\n' "$1" >&2
  exit 2
}

for name in PROJECT ZONE NAME; do
  [[ -n ${!name:-} ]] || fail "$name is not set"
done
TYPE=${TYPE:-v5litepod-8} WORKDIR=${WORKDIR:-}
case $TYPE in
  v5litepod-[0-9]*) RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} ;;
  v6e-[0-9]*) RUNTIME=${RUNTIME:-v2-alpha-tpuv6e} ;;
  v5p-[0-9]*) RUNTIME=${RUNTIME:-v2-alpha-tpuv5} ;;
  *) fail "TYPE=$TYPE is none of v5litepod-N, v6e-N and v5p-N" ;;
esac
case $TYPE in
  *-1 | *-4 | *-8) hosts=one ;; # of v5p the 8 are cores, on four chips
  *) hosts=all ;;
esac
[[ -z $WORKDIR || $WORKDIR == gs://?*/?* ]] ||
  fail "WORKDIR=$WORKDIR is not gs://BUCKET/FOLDER"
[[ $hosts == one || -n $WORKDIR ]] ||
  fail "TYPE=$TYPE has several hosts, and a disk is of one: set WORKDIR=gs://BUCKET/FOLDER"
DISK=${DISK:-$NAME-disk} DISK_GB=${DISK_GB:-200} SPOT=${SPOT:-1} WAIT=${WAIT:-30}
place=(--zone="$ZONE" --project="$PROJECT")
workers=()
[[ $hosts == all ]] && workers=(--worker=all --batch-size=all)
resources=(gcloud compute tpus queued-resources)

state() { # ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; nothing where there is none
  "${resources[@]}" describe "$NAME" "${place[@]}" --format='value(state.state)' \
    2>/dev/null || true
}

down() {
  "${resources[@]}" delete "$NAME" "${place[@]}" --force --quiet
}

ask() {
  local more=()
  [[ $SPOT == 1 ]] && more=(--spot)
  if [[ -z $WORKDIR ]]; then
    gcloud compute disks describe "$DISK" "${place[@]}" >/dev/null 2>&1 ||
      gcloud compute disks create "$DISK" "${place[@]}" --size="${DISK_GB}GB" \
        --type=pd-balanced
    more+=(--data-disk="source=projects/$PROJECT/zones/$ZONE/disks/$DISK,mode=read-write")
  fi
  "${resources[@]}" create "$NAME" "${place[@]}" --node-id="$NAME" \
    --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "${more[@]}"
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
  gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" "${workers[@]}" \
    --command="$1"
}

attempt() { # installs what is committed here, and runs; its exit code is the run's
  local archive quoted settings
  archive=$(mktemp)
  git archive --format=tar.gz --output="$archive" HEAD || return 2
  gcloud compute tpus tpu-vm scp "$archive" "$NAME:aprm_jax.tar.gz" "${place[@]}" \
    "${workers[@]}" || return 255
  rm -f "$archive"
  [[ $hosts == all ]] && set -- --distributed "$@"
  quoted=$(printf '%q ' "$@")
  settings=${WORKDIR:+$(printf 'WORKDIR=%q ' "$WORKDIR")}
  remote "mkdir -p aprm_jax && tar -xzf aprm_jax.tar.gz -C aprm_jax &&
    ${settings}bash aprm_jax/launch/on_vm.sh $quoted"
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
printf 'tpu_vm.sh: done; results are %s\n' "${WORKDIR:-on the disk $DISK}"
