"""A host of a TPU: what is installed and mounted, and a run that outlives its link."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
NOTE = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0") $*" >> "$STUBS/calls"
"""
# A Python of the version in the file of its name: it makes environments, whose own
# Python notes what is run, and whose run prints a line a moment until it may end.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  --version) echo "Python $(cat "$STUBS/$(basename "$0")")" ;;
  -c*) awk -F. '{ exit !($1 == 3 && $2 >= 11) }' "$STUBS/$(basename "$0")" ;;
  "-m venv"*)
    mkdir -p "$3/bin"
    cp "$STUBS/environment" "$3/bin/python"
    printf '%s\\n' "$(basename "$0") -m venv" >> "$STUBS/calls" ;;
  "-m pip"*)
    printf '%s\\n' "$(basename "$0") $*" >> "$STUBS/calls"
    [[ -f $STUBS/uv ]] || exit 1
    mkdir -p ~/uv/bin && cp "$STUBS/uv" ~/uv/bin/uv ;;
esac
"""
ENVIRONMENT = """#!/usr/bin/env bash
printf '%s\\n' "python $*" >> "$STUBS/calls"
[[ $* == *aprm_jax.main* ]] || exit 0
trap 'echo saved; exit 143' TERM
line=0
until [[ -f $STUBS/end ]]; do echo "line $((line += 1))"; sleep 0.05; done
exit "$(cat "$STUBS/end")"
"""
UV = """#!/usr/bin/env bash
printf '%s\\n' "uv $* ($UV_PYTHON_PREFERENCE)" >> "$STUBS/calls"
[[ $2 != find ]] || echo "$STUBS/bin/python3.12"
"""

TOOLS = """
awk basename bash cat cp dirname env flock id mkdir mv rm setsid sha256sum sleep tail
true
"""


def program(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Host:
    """A host with nothing on it, and stubs for what changes the machine."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        for made in (self.home, self.bin, folder / "ids"):
            made.mkdir()
        for name in ("sudo", "mount.nfs"):
            program(self.bin / name, NOTE)
        program(self.bin / "mountpoint", "#!/usr/bin/env bash\nexit 1\n")
        for name in TOOLS.split():
            self._link(name)
        program(folder / "environment", ENVIRONMENT)
        self.python("python3", "3.12.1")
        (folder / "calls").touch()

    def _link(self, name):
        path = next(
            found
            for folder in os.environ["PATH"].split(os.pathsep)
            if (found := Path(folder) / name).exists()
        )
        (self.bin / name).symlink_to(path)

    def python(self, name, version):
        (self.folder / name).write_text(version)
        program(self.bin / name, PYTHON)

    def start(self, *arguments, **env) -> subprocess.Popen:
        """on_vm.sh, as an ssh session of its own."""
        return subprocess.Popen(
            ["bash", str(LAUNCH / "on_vm.sh"), *arguments],
            env={
                "PATH": str(self.bin),
                "HOME": str(self.home),
                "STUBS": str(self.folder),
                "DISK_IDS": str(self.folder / "ids"),
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *arguments, **env) -> tuple[int, str]:
        """Its exit code and output."""
        process = self.start(*arguments, **env)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def runs(self) -> list[str]:
        """Each run that was started."""
        return [call for call in self.calls() if "aprm_jax.main" in call]

    def end(self, code):
        (self.folder / "end").write_text(f"{code}\n")

    def pid(self) -> int:
        return int((self.home / "aprm-run" / "pid").read_text())


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.end(0)


def read_until(process, text):
    """What a call prints up to a line with `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"no {text!r} in {lines}")


def cut(process):
    """The link of a session: what ran in it is gone at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_cut_link_neither_ends_the_run_nor_starts_it_twice(host):
    first = host.start("--config=a b", START="1", WORKDIR="gs://b/run")
    assert "line 1\n" in read_until(first, "line 3")
    cut(first)
    run = host.pid()
    second = host.start("--config=a b", START="1", WORKDIR="gs://b/run")
    read_until(second, "line")
    cut(second)
    assert host.pid() == run
    host.end(5)
    # It has ended while nobody looked; or it ends while somebody does.
    code, output = host.call("--config=a b", START="1", WORKDIR="gs://b/run")
    assert code == 5 and "line" in output
    assert host.runs() == [
        "python -u -m aprm_jax.main --workdir=gs://b/run --config=a b"
    ]


def test_the_same_command_shows_a_run_that_is_at_work_and_another_is_refused(host):
    first = host.start("--config=a", START="1", WORKDIR="gs://b/run")
    read_until(first, "line 2")
    code, output = host.call("--config=b", START="2", WORKDIR="gs://b/run")
    assert code == 97 and "another run is at work" in output
    same = host.start("--config=a", START="3", WORKDIR="gs://b/run")
    read_until(same, "line")
    host.end(0)
    same.communicate(timeout=60)
    first.communicate(timeout=60)
    assert (first.returncode, same.returncode) == (0, 0)
    assert len(host.runs()) == 1


def test_what_has_ended_is_started_again_by_a_new_start(host):
    host.end(1)
    for begun in ("1", "2", "2"):
        code, _ = host.call("--config=a", START=begun, WORKDIR="gs://b/run")
        assert code == 1
    assert len(host.runs()) == 2


def test_a_run_that_is_asked_to_stop_is_not_one_that_was_taken_away(host):
    launcher = (LAUNCH / "tpu_vm.sh").read_text()
    [stop] = re.findall(r"  stop\).*?remote '(.*?)'", launcher, re.DOTALL)
    process = host.start("--config=a", START="1", WORKDIR="gs://b/run")
    read_until(process, "line 2")
    for _ in range(2):
        done = subprocess.run(["bash", "-c", stop], cwd=host.home)
        assert done.returncode == 0
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "saved" in output
        process = host.start("--config=a", START="1", WORKDIR="gs://b/run")
    process.communicate(timeout=60)
    assert process.returncode == 130 and len(host.runs()) == 1


@pytest.mark.parametrize(
    ("sent", "ended"),
    [(signal.SIGTERM, 143), (signal.SIGKILL, 137)],
)
def test_a_signal_to_the_run_is_its_exit_code(host, sent, ended):
    process = host.start("--config=a", START="1", WORKDIR="gs://b/run")
    read_until(process, "line 2")
    os.kill(host.pid(), sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == ended
    assert ("saved" in output) == (sent != signal.SIGKILL)


def test_an_address_is_installed_for_where_the_venv_is_older_than_it(host):
    host.end(0)
    (host.folder / "ids" / "google-n-disk").touch()
    for env in ({}, {}, {"WORKDIR": "gs://b/r"}, {"WORKDIR": "gs://b/r"}):
        code, output = host.call("--config=a", DISK="n-disk", **env)
        assert code == 0, output
    installed = [call for call in host.calls() if "pip install" in call]
    assert installed == [
        "python -m pip install --quiet .[tpu] -c constraints.txt",
        "python -m pip install --quiet .[tpu,cloud] -c constraints.txt",
    ]


def test_a_pod_works_on_the_file_system_of_all_hosts(host):
    host.end(0)
    code, output = host.call("--config=a", SHARE="10.0.0.2:/aprm", RUN="n")
    assert code == 0, output
    assert "sudo mount -t nfs 10.0.0.2:/aprm /mnt/aprm" in host.calls()
    [run] = host.runs()
    assert run.endswith("aprm_jax.main --workdir=/mnt/aprm/n --config=a")


@pytest.mark.parametrize("name", ["google-n-disk", "google-persistent-disk-1"])
def test_the_disk_is_found_by_its_id(host, name):
    host.end(0)
    (host.folder / "ids" / "google-persistent-disk-0").touch()
    (host.folder / "ids" / name).touch()
    code, output = host.call("--config=a", DISK="n-disk")
    assert code == 0, output
    assert f"sudo mount {host.folder}/ids/{name} /mnt/aprm" in host.calls()
    # The stub of blkid knows what is on it.
    assert not [call for call in host.calls() if "mkfs" in call]


def test_a_disk_that_is_not_there_is_told_with_those_that_are(host):
    (host.folder / "ids" / "google-persistent-disk-0").touch()
    code, output = host.call("--config=a", DISK="n-disk")
    assert code == 97 and "google-persistent-disk-0" in output
    assert not [call for call in host.calls() if "mkfs" in call or "mount" in call]


def test_a_newer_python_beside_the_old_one_is_found(host):
    host.end(0)
    host.python("python3", "3.10.6")
    host.python("python3.11", "3.11.4")
    code, output = host.call("--config=a", WORKDIR="gs://b/r")
    assert code == 0, output
    assert "python3.11 -m venv" in host.calls()


def test_where_python_is_too_old_uv_brings_another(host):
    host.end(0)
    host.python("python3", "3.10.6")
    program(host.folder / "uv", UV)
    (host.folder / "python3.12").write_text("3.12.1")
    brought = "uv python install 3.12 (only-managed)"
    program(
        host.folder / "uv",
        UV + '[[ $2 != install ]] || cp "$STUBS/bin/python3" "$STUBS/bin/python3.12"\n',
    )
    code, output = host.call("--config=a", WORKDIR="gs://b/r")
    assert code == 0, output
    assert host.calls()[:2] == [
        f"python3 -m pip install --quiet --target {host.home}/uv uv -c constraints.txt",
        brought,
    ]
    assert "python3.12 -m venv" in host.calls()


def test_without_a_python_that_fits_nothing_is_mounted_and_it_is_told(host):
    host.python("python3", "3.10.6")
    (host.folder / "ids" / "google-n-disk").touch()
    code, output = host.call("--config=a", DISK="n-disk")
    assert code == 97
    assert "needs Python 3.11 or newer" in output and "Python 3.10.6" in output
    assert not [call for call in host.calls() if call.startswith("sudo")]
