"""job=prepare where a disk is full: one message, and a rerun that completes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import command
import pytest

CONFIG = """
from aprm_jax.config import default_config

def get_config(arg=""):
    c = default_config()
    c.stages = ("data:prepare",)
    c.domain.name = "questions"
    c.domain.train = "train.jsonl"
    c.domain.dev_count = 0
    c.prepare.sources = ("gsm8k:train.jsonl",)
    c.prepare.rows_per_file = 64
    c.builder.line_stride = 0
    c.builder.window = 0
    c.compilation_cache = ""
    return c
"""
_ASKED = ("--config=own.py", "--workdir=run", "--config.job=prepare")
# On a file system of so many KiB, which then grows.
_SMALL = """
mkdir run && mount -t tmpfs -o size="$1"k tmpfs run || exit 99
shift
"$@" 2> first; echo $? > first.code
mount -o remount,size=64m run || exit 99
"$@" 2> second; echo $? > second.code
cp -r run/data kept || cat second >&2
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "own.py").write_text(CONFIG)
    rows = [
        {
            "question": f"Ann has {k} coins and finds {k + 1}. How many has she?",
            "answer": f"She has {k}+{k + 1}=<<{k}+{k + 1}={2 * k + 1}>>{2 * k + 1} "
            f"coins.\n#### {2 * k + 1}",
        }
        for k in range(400)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(lines)
    return tmp_path


def _rows(data: Path) -> int:
    metadata = json.loads((data / "prepared" / "1.0.0" / "metadata.json").read_text())
    return sum(counts["rows"] for counts in metadata["splits"].values())


def _run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=command.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("limit", [1 << 9, 1 << 13])
def test_files_that_may_not_grow(folder, limit):
    """First the config, then the data themselves are too long."""
    code, errors = _run(folder, "-c", command.LIMITED, str(limit), *_ASKED)
    assert code == 1, errors
    [message] = errors.splitlines()
    assert message.startswith("aprm_jax: error: ") and "run" in message, message
    assert "File too large" in message and "space left on the disk" in message
    assert not (folder / "run" / "data" / "prepared").exists()
    code, errors = _run(folder, "-m", "aprm_jax.main", *_ASKED)
    assert (code, errors) == (0, "")
    assert _rows(folder / "run" / "data") == 400
    assert not list((folder / "run" / "data").glob(".*part*"))


@pytest.mark.parametrize("size", [16, 112])
def test_a_file_system_that_is_full(folder, size):
    mount = ("unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt")
    if not shutil.which(mount[0]) or subprocess.run(mount, check=False).returncode:
        pytest.skip("a process may mount nothing here")
    asked = [sys.executable, "-m", "aprm_jax.main", *_ASKED]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", _SMALL, "sh", str(size), *asked],
        cwd=folder,
        env=command.ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    errors = (folder / "first").read_text()
    assert (folder / "first.code").read_text() == "1\n", errors
    [message] = errors.splitlines()
    assert message.startswith("aprm_jax: error: ") and "run" in message, message
    assert "No space left on device" in message and "space left on the disk" in message
    assert (folder / "second.code").read_text() == "0\n", (
        folder / "second"
    ).read_text()
    assert _rows(folder / "kept") == 400
