"""Lines go on to be printed where nobody reads them, and a run goes on too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import command
import pytest

from aprm_jax.training.metrics import read_metrics

BEGIN = "from aprm_jax.training.streams import outlive_readers; outlive_readers()\n"
PRINTS = """
import logging, sys, tqdm, warnings
for number in range(9):
    print("line", number, flush=True)
    print("line", number, file=sys.stderr, flush=True)
tqdm.tqdm.write("of a bar", file=sys.stdout)
logging.getLogger("some").warning("of a log")
warnings.warn("of a warning")
open("reached", "w").close()
"""


def _ends(code: str, folder: Path, unbuffered: str) -> int:
    """The exit code where both streams are a pipe whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=write,
        stderr=write,
        cwd=folder,
        env={**command.ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    return done.returncode


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_printed_into_a_closed_pipe_ends_nothing(tmp_path, unbuffered):
    assert _ends(PRINTS, tmp_path, unbuffered) != 0
    assert not (tmp_path / "reached").exists()
    assert _ends(BEGIN + PRINTS, tmp_path, unbuffered) == 0
    assert (tmp_path / "reached").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stream_that_is_read_is_as_it_was(tmp_path, unbuffered):
    code = "import sys\nprint('a – b'); print('late', end=''); sys.stderr.write('c')"
    told = [
        subprocess.run(
            [sys.executable, "-c", begin + code],
            capture_output=True,
            cwd=tmp_path,
            env={**command.ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
        )
        for begin in ("", BEGIN)
    ]
    assert told[0].stdout == told[1].stdout == "a – b\nlate".encode()
    assert told[0].stderr == told[1].stderr == b"c"


def test_a_full_disk_is_told_as_before(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + "print('a', flush=True)"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=command.ENVIRONMENT,
        )
    assert done.returncode == 1 and "No space left" in done.stderr


def test_streams_that_were_closed_before_take_everything(tmp_path):
    code = BEGIN + "import sys; print('a'); print(sys.stdout.isatty(), file=sys.stderr)"
    done = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, code],
        env=command.ENVIRONMENT,
    )
    assert done.returncode == 0


def test_a_run_whose_terminal_is_lost_goes_on_to_its_end(tmp_path):
    """The reader of a FIFO leaves after two lines of the training loop."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    seen: list[str] = []

    def read() -> None:
        with open(fifo) as lines:
            for line in lines:
                seen.append(line)
                if len([line for line in seen if "] step " in line]) == 2:
                    return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    arguments = ["--workdir=run", "--config.stages=solver:sft", "--config.log_every=1"]
    running = command.start(
        tmp_path, [command.QUICKSTART, command.CACHE, *arguments], "fifo"
    )
    running.process.join(240)
    reader.join(10)
    assert running.process.exitcode == 0
    steps = len(read_metrics(tmp_path / "run" / "solver"))
    assert steps > 4 and f"step 2/{steps}" in "".join(seen)
    assert f"step {steps}/{steps}" not in "".join(seen)
    assert (tmp_path / "run" / "solver" / "model").is_dir()
    assert json.loads((tmp_path / "run" / "config.json").read_text())
