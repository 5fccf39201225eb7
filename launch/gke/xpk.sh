#!/usr/bin/env bash
# A config on a TPU slice of a cluster that XPK made, and what it prints.
#
#   PROJECT=p ZONE=us-west4-a CLUSTER=c IMAGE=i launch/gke/xpk.sh NAME --config=FILE...
#
# TYPE (v5litepod-8) and RESTARTS (20) may be set. IMAGE is launch/Dockerfile's, target
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
xpk workload create --workload="$workload" "${place[@]}" --tpu-type="$TYPE" \
  --num-slices=1 --max-restarts="${RESTARTS:-20}" --docker-image="$IMAGE" \
  --command="$command"
kubectl logs --follow --max-log-requests=64 --selector="jobset.sigs.k8s.io/jobset-name=$workload" \
  --pod-running-timeout=30m
