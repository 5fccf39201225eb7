"""The documentation: its code runs, its commands are understood, its site is whole."""

from __future__ import annotations

import doctest
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tiny

from aprm_jax.config import default_config, settings
from aprm_jax.config.reference import configuration_reference

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    if page.name != "configuration.md" and "_build" not in page.parts
)
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_interpreter_sessions_print_what_they_show(page):
    text = page.read_text()
    results = doctest.testfile(str(page), module_relative=False)
    assert results.attempted == len(re.findall(r"(?m)^\s*>>> ", text))
    assert results.failed == 0


def _blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with what the examples load: the models of a run, tiny ones."""
    root = tmp_path_factory.mktemp("docs")
    tiny.save(root / "runs/mine/solver/model", "solver", max_new_tokens=6)
    models = root / "runs/mine/aprm"
    tiny.save(models / "model", "prm")
    tiny.save(models / "generator/model", "generator", max_new_tokens=6)
    tiny.save(root / "runs/mine/solver/model", "solver", max_new_tokens=6)
    return root


@pytest.mark.parametrize("page", [p for p in PAGES if _blocks(p)], ids=lambda p: p.stem)
def test_python_blocks_run_one_after_the_other(page, finished, monkeypatch):
    monkeypatch.chdir(finished)
    names: dict[str, object] = {}
    for block in _blocks(page):
        exec(compile(block, str(page), "exec"), names)


def _commands(page: Path) -> list[str]:
    """Every command of this package in a page, its lines joined."""
    text = page.read_text().replace("\\\n", " ")
    return re.findall(r"(?:python -m aprm_jax\.main|aprm-jax)( --[^`\n&;]*)", text)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_name_configs_and_fields_that_exist(page):
    known = {*settings(), *default_config().keys()}
    for command in _commands(page):
        for word in shlex.split(command):
            name, _, value = word.partition("=")
            if name == "--config":
                file = value.partition(":")[0]
                assert not file.endswith(".py") or (REPOSITORY / file).is_file(), word
            elif name.startswith("--config.") and "overrides" not in name:
                assert name.removeprefix("--config.") in known, word
            else:
                assert name in ("--config", "--workdir", "--help") or (
                    name.startswith("--config.overrides")
                ), word


def test_pages_link_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_code_names_pages_that_exist():
    # One is made with the site, the other is ggml's.
    elsewhere = {"docs/configuration.md", "docs/gguf.md"}
    for folder in ("aprm_jax", "configs", "benchmarks", "launch"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for page in re.findall(r"\bdocs/[\w/]+\.md", path.read_text()):
                there = page in elsewhere or (REPOSITORY / page).exists()
                assert there, f"{path}: {page}"


def test_the_reference_has_every_field():
    text = configuration_reference()
    for name, field in settings().items():
        assert f"| `{name}` | {field.type} | `{field.default!r}` |" in text


def _lines(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def test_the_architecture_page_says_how_large_the_package_is():
    package = REPOSITORY / "aprm_jax"
    lines = _lines(package)
    text = " ".join((REPOSITORY / "docs/architecture.md").read_text().split())
    [said] = re.findall(r"has about ([\d,]+) lines", text)
    assert abs(lines - int(said.replace(",", ""))) < 5_000
    share = (_lines(package / "jobs") + _lines(package / "oracle")) / lines
    assert "A third lies in the jobs and in the oracle" in text
    assert 0.3 < share < 0.4


def test_the_picture_of_the_rooms_has_the_layers_that_are_checked():
    picture = (REPOSITORY / "docs/_static/architecture.svg").read_text()
    floors: dict[int, list[str]] = {}
    for height, room in re.findall(
        r' y="(\d+)" text-anchor="middle"[^>]*>(\w+)<', picture
    ):
        floors.setdefault(int(height), []).append(room)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert list(floors.values()) == [re.findall(r"\w+", layer) for layer in layers]


def test_every_config_is_in_the_list_of_configs():
    text = (REPOSITORY / "docs/tutorials/configs.md").read_text()
    listed = re.findall(r"(?m)^\| `(configs/\w+\.py)[`:]", text)
    files = (REPOSITORY / "configs").glob("*.py")
    assert sorted(listed) == sorted(f"configs/{path.name}" for path in files)


def test_ci_leaves_out_configs_that_there_are_and_no_more_than_the_readme_says():
    script = (REPOSITORY / ".ci/run").read_text()
    lines = re.findall(r"(?m)^ +([\w |]+)\) ;;$", script)
    names = [name for line in lines for name in line.split(" | ")]
    assert all((REPOSITORY / f"configs/{name}.py").is_file() for name in names)
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert "all configs but those of long figures, which it lists" in readme
    long = {"ablation", "explore", "explore_targets", "naive_generator"}
    long |= {
        "naive_pressure",
        "pressure",
        "rest_mcts",
        "rl_pav",
        "rl_verifiers",
        "search_pressure",
        "sizes",
    }
    assert set(names) <= long and len(names) == len(set(names))


def test_the_readme_is_read_in_one_sitting():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200


def test_every_table_that_a_benchmark_writes_has_one_place():
    scripts = sorted((REPOSITORY / "benchmarks").glob("*.py"))
    calls = "\n".join(script.read_text() for script in scripts)
    names = set(
        re.findall(r'replace_between\([^"\n]*(?:"docs/[^"]*", )?"(\w+)"', calls)
    )
    assert {"quickstart", "ablation", "rl", "rl_pav", "pav", "didactic"} <= names
    pages = "\n".join(page.read_text() for page in PAGES)
    for name in names:
        marked = f"<!-- {name}:begin -->.*?<!-- {name}:end -->"
        assert len(re.findall(marked, pages, re.DOTALL)) == 1, name
