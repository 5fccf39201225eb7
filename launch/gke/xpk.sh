#!/usr/bin/env bash
# A config on a TPU slice of a cluster that XPK made, and what it prints.
#
#   PROJECT=p ZONE=us-west4-a CLUSTER=c IMAGE=i launch/gke/xpk.sh NAME --config=FILE...
#
# TYPE (v5litepod-8) and RESTARTS (20) may be set. Where the link is cut the workload goes
# on; `kubectl logs` shows it. IMAGE is launch/Dockerfile's, target
# tpu. --workdir must be gs://BUCKET/FOLDER or on a volume that the cluster mounts, of
# several hosts one that all of them mount, else a restart begins anew.
set -euo pipefail

fail() {
  printf 'xpk.sh: error: %s\n' "$1" >&2
  exit 2
}

for name in PROJECT ZONE CLUSTER IMAGE; do
  [[ -n ${!name:-} ]] || fail "$name is not set"
done
[[ $# -gt 1 ]] || fail "give a name for the workload, and --config=FILE"
TYPE=${TYPE:-v5litepod-8}
workload=$1
shift
place=(--cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE")
command=$(printf '%q ' python -m aprm_jax.main "$@")
# By itself XPK starts again what a signal ended (127 to 255), and leaves a config that is
# wrong, which ends with 1. So do hosts that have lost another, and they are to go on.
codes=()
case $TYPE in
  *-1 | *-4 | *-8) ;;
  *) codes=(--restart-on-exit-codes=1) ;;
esac
xpk workload create --workload="$workload" "${place[@]}" --tpu-type="$TYPE" \
  --num-slices=1 --max-restarts="${RESTARTS:-20}" "${codes[@]}" \
  --docker-image="$IMAGE" --command="$command"

pods=(--selector="jobset.sigs.k8s.io/jobset-name=$workload")

ended() { # Completed or Failed, once it is
  local types
  types=$(kubectl get jobset "$workload" \
    --output='jsonpath={.status.conditions[?(@.status=="True")].type}') || return
  [[ " $types " =~ \ (Completed|Failed)\  ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}

show() { # every line so far, and with --follow what comes
  kubectl logs "${pods[@]}" --prefix --tail=-1 --max-log-requests=64 "$@"
}

# The pods wait for machines and images, and after a restart they are others: their logs
# are there once they run.
shown=0
until how=$(ended); do
  if kubectl wait pod "${pods[@]}" --for=condition=Ready --timeout="${WAIT:-30}s" \
    >/dev/null 2>&1; then
    show --follow && shown=1
  fi
  sleep "${PAUSE:-5}"
done
[[ $shown -eq 1 ]] || show || true
printf 'xpk.sh: %s: %s\n' "$workload" "$how"
[[ $how == Completed ]]
