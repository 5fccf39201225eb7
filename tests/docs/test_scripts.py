"""Scripts of benchmarks say what they do when they are asked, and do nothing."""

from __future__ import annotations

import runpy
import sys

import command
import pytest

FOLDER = command.REPOSITORY / "benchmarks"
SCRIPTS = [
    path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text()
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_is_asked_for_help_gives_it_and_runs_nothing(
    path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(FOLDER))
    with pytest.raises(SystemExit) as raised:
        runpy.run_path(str(path), run_name="__main__")
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")
