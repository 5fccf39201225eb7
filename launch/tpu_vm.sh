#!/usr/bin/env bash
# Runs a config on a TPU VM or a pod of them: asks for it as a queued resource, installs,
# starts the run on every host, shows what it prints, and does so again after a pre-emption
# until the run ends. The run is apart from this script: one that was stopped, or lost its
# link, shows the same run when it is started again.
#
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh --config=configs/quickstart.py
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh stop   # the run saves and ends
#   PROJECT=p ZONE=us-west4-a NAME=aprm launch/tpu_vm.sh down   # the VM; the disk stays
#   TYPE=v5litepod-64 SHARE=10.0.0.2:/aprm ... launch/tpu_vm.sh --config=FILE   # a pod
#
# What the run keeps outlives the VM, and the same command goes on from there: it is on a
# persistent disk of its own (DISK, NAME-disk), or at WORKDIR (gs://BUCKET/FOLDER). Disks
# of a pod are for reading only, so there it is on an NFS server that all hosts mount
# (SHARE, HOST:/PATH) or at WORKDIR, with the 100 GiB of the system's disk to work in. TYPE
# (v5litepod-8), RUNTIME, DISK_GB (room for three checkpoints that fill the chips), SPOT
# (1), ATTEMPTS (to get a VM that is refused, 5) and WAIT (seconds between looks, 30) may
# be set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'tpu_vm.sh: error: %s\n' "$1" >&2
  exit 2
}

for name in PROJECT ZONE NAME; do
  [[ -n ${!name:-} ]] || fail "$name is not set"
done
TYPE=${TYPE:-v5litepod-8} WORKDIR=${WORKDIR:-} SHARE=${SHARE:-}
# The image, what disks the VM takes, and GB of memory of what the type counts: chips, of
# v5p cores.
case $TYPE in
  v5litepod-[0-9]*) image=v2-alpha-tpuv5-lite disks=pd-balanced memory=16 ;;
  v6e-[0-9]*) image=v2-alpha-tpuv6e disks=hyperdisk-balanced memory=32 ;;
  v5p-[0-9]*) image=v2-alpha-tpuv5 disks=pd-balanced memory=48 ;;
  *) fail "TYPE=$TYPE is none of v5litepod-N, v6e-N and v5p-N" ;;
esac
RUNTIME=${RUNTIME:-$image}
case $TYPE in
  *-1 | *-4 | *-8) hosts=one ;; # of v5p the 8 are cores, on four chips
  *) hosts=all ;;
esac
[[ -z $WORKDIR || $WORKDIR == gs://?*/?* ]] ||
  fail "WORKDIR=$WORKDIR is not gs://BUCKET/FOLDER"
[[ -z $SHARE || $SHARE == ?*:/* ]] || fail "SHARE=$SHARE is not HOST:/PATH"
[[ -z $SHARE || -z $WORKDIR ]] || fail "a run is kept at SHARE or at WORKDIR, not at both"
[[ $hosts == one || -n $WORKDIR || -n $SHARE ]] ||
  fail "TYPE=$TYPE has several hosts, and a disk is of one: set SHARE=HOST:/PATH (NFS), \
or WORKDIR=gs://BUCKET/FOLDER where three checkpoints fit the system's disk of 100 GiB"
DISK=${DISK:-$NAME-disk} DISK_GB=${DISK_GB:-$((3 * memory * ${TYPE##*-} + 100))}
[[ $hosts == one && -z $SHARE ]] || DISK=
SPOT=${SPOT:-1} WAIT=${WAIT:-30} ATTEMPTS=${ATTEMPTS:-5}
place=(--zone="$ZONE" --project="$PROJECT")
workers=()
[[ $hosts == all ]] && workers=(--worker=all --batch-size=all)
resources=(gcloud compute tpus queued-resources)

look() { # sets `now` (ACTIVE, WAITING_FOR_RESOURCES, ...; "" where there is none) and `why`
  local told
  told=$("${resources[@]}" describe "$NAME" "${place[@]}" \
    --format='value(state.state,state.failedData.error.message)' 2>/dev/null) || true
  IFS=$'\t' read -r now why <<<"$told" || true
}

down() {
  "${resources[@]}" delete "$NAME" "${place[@]}" --force --quiet
}

ask() {
  local more=()
  [[ $SPOT == 1 ]] && more=(--spot)
  if [[ -n $DISK ]]; then
    gcloud compute disks describe "$DISK" "${place[@]}" >/dev/null 2>&1 ||
      gcloud compute disks create "$DISK" "${place[@]}" --size="${DISK_GB}GB" \
        --type="$disks"
    more+=(--data-disk="source=projects/$PROJECT/zones/$ZONE/disks/$DISK,mode=read-write")
  fi
  "${resources[@]}" create "$NAME" "${place[@]}" --node-id="$NAME" \
    --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "${more[@]}"
}

ready() { # waits until the VM is there; what was taken away is asked for again
  local refused=0
  while true; do
    look
    case $now in
      ACTIVE) return ;;
      "") ask ;;
      FAILED)
        printf 'tpu_vm.sh: %s was refused: %s\n' "$NAME" "${why:-no reason is given}"
        down
        [[ $((refused += 1)) -lt $ATTEMPTS && ! $why =~ $lasting ]] ||
          fail "$NAME was refused; see above"
        ;;
      SUSPENDED | SUSPENDING)
        printf 'tpu_vm.sh: %s is %s: asking again\n' "$NAME" "$now"
        down
        ;;
      *) printf 'tpu_vm.sh: %s is %s\n' "$NAME" "$now" ;;
    esac
    sleep "$WAIT"
  done
}
# Reasons that asking again does not change.
lasting='[Qq]uota|PERMISSION_DENIED|[Pp]ermission|INVALID_ARGUMENT|[Ii]nvalid'
lasting+='|NOT_FOUND|not found|[Uu]nsupported|not support'

remote() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" "${workers[@]}" \
    --command="$1"
}

attempt() { # installs what is committed here, and runs; its exit code is the run's
  local archive code=0 folder=aprm_jax-${commit:0:12} quoted settings="START=$start "
  archive=$(mktemp)
  git archive --format=tar.gz --output="$archive" "$commit" || return 2
  gcloud compute tpus tpu-vm scp "$archive" "$NAME:$folder.tar.gz" "${place[@]}" \
    "${workers[@]}" || code=255
  rm -f "$archive"
  [[ $code -eq 0 ]] || return "$code"
  [[ $hosts == all ]] && set -- --distributed "$@"
  quoted=$(printf '%q ' "$@")
  for name in WORKDIR SHARE DISK; do
    [[ -z ${!name} ]] || settings+=$(printf '%s=%q ' "$name" "${!name}")
  done
  [[ -z $SHARE ]] || settings+=$(printf 'RUN=%q ' "$NAME")
  # Files that a run reads are never written again.
  remote "[ -d $folder ] || { rm -rf $folder.new && mkdir $folder.new &&
    tar -xzf $folder.tar.gz -C $folder.new && mv $folder.new $folder; } || exit 255
    ${settings}bash $folder/launch/on_vm.sh $quoted"
}

case ${1:-} in
  down)
    down
    exit
    ;;
  stop)
    # shellcheck disable=SC2016 # expanded there
    remote 'cd aprm-run && touch stop &&
      { flock --nonblock alive true || kill "$(cat pid)"; }'
    exit
    ;;
esac
[[ $# -gt 0 ]] || fail "no --config=FILE"
commit=$(git rev-parse HEAD)
unreached=0 code=0 # unreached: in a row, of a VM that is said to be there
while true; do
  ready
  # After a cut link it is the same start, of a run that may still be there.
  [[ $code -eq 255 ]] || start=$(date +%s)-$RANDOM
  code=0 began=$SECONDS
  attempt "$@" || code=$?
  [[ $code -eq 0 ]] && break
  if [[ $code -eq 97 ]]; then
    down
    fail "nothing was run, and $NAME was given back; see above"
  fi
  # The run's own failure leaves the VM as it is; a pre-emption takes it. Between the
  # two the VM is said to be there, and ssh or a SIGTERM says otherwise: a while.
  look
  [[ $((SECONDS - began)) -lt 600 ]] || unreached=0
  if [[ $now != ACTIVE ]]; then
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
printf 'tpu_vm.sh: done; results are %s\n' "${WORKDIR:-on ${SHARE:-the disk $DISK}}"
