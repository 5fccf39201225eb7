"""Scripts of benchmarks say what they do when asked, and take what pages tell them."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import command
import pytest

FOLDER = command.REPOSITORY / "benchmarks"
SCRIPTS = [
    path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text()
]


def _needs(path: Path) -> None:
    """Skips where a script imports what not every environment has."""
    if re.search(r"(?m)^import torch", path.read_text()):
        pytest.importorskip("torch", reason=f"{path.name} needs torch")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_is_asked_for_help_gives_it_and_runs_nothing(
    path, monkeypatch, capsys
):
    _needs(path)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(FOLDER))
    with pytest.raises(SystemExit) as raised:
        runpy.run_path(str(path), run_name="__main__")
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")


class Accepted(Exception):
    """The parser has taken the arguments; nothing behind it runs."""


def _pages() -> list[Path]:
    """Whatever tells a reader what to type."""
    root = command.REPOSITORY
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    return [
        *(page for page in pages if "_build" not in page.parts),
        *(root / "configs").glob("*.py"),
        *FOLDER.glob("*.py"),
    ]


def _commands(text: str) -> list[str]:
    """Every command of a benchmark in a text: to the end of its line, or its quote.

    A line that ends in a backslash goes on, and so does any inside backquotes. What is
    optional, in brackets, is taken too; a comment is not.
    """
    quoted = re.findall(r"`(python\s+benchmarks/[^`]*)`", text)
    lines = re.sub(r"`[^`\n]*`", "", re.sub(r"\\\n\s*", "", text)).splitlines()
    starts = [re.match(r"\s*(?:\$ )?(python benchmarks/.*)", line) for line in lines]
    found = [*quoted, *(start[1] for start in starts if start)]
    return [re.sub(r"[\[\]]|\.\.\.|…|#.*", " ", command) for command in found]


COMMANDS = sorted(
    {
        (str(page.relative_to(command.REPOSITORY)), " ".join(found.split()))
        for page in _pages()
        for found in _commands(page.read_text())
    }
)


def _parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command's script up to where its own parser has read the arguments."""
    _, script, *arguments = shlex.split(line)
    _needs(command.REPOSITORY / script)
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(str(FOLDER))
    runpy.run_path(str(command.REPOSITORY / script), run_name="__main__")


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_that_a_page_tells_is_taken_by_its_script(page, line, monkeypatch):
    with pytest.raises(Accepted):
        _parse(line, monkeypatch)


def test_commands_are_found_and_a_wrong_one_is_refused(monkeypatch, capsys):
    text = """Try `python
    benchmarks/a.py --x=1`, or

        python benchmarks/b.py [--y] RUN...   # a file a run
        python benchmarks/c.py \\
            --z
    """
    found = [" ".join(line.split()) for line in _commands(text)]
    assert found == [
        "python benchmarks/a.py --x=1",
        "python benchmarks/b.py --y RUN",
        "python benchmarks/c.py --z",
    ]
    assert {page for page, _ in COMMANDS} > {"docs/huggingface.md", "docs/scaling.md"}
    with pytest.raises(SystemExit):
        _parse("python benchmarks/smollm2.py --only=memory", monkeypatch)
    assert "--workdir" in capsys.readouterr().err
