"""Every notebook runs from top to bottom, at a reduced size."""

from __future__ import annotations

import importlib.machinery
import os
import re
from pathlib import Path
from typing import Any

import jax
import pytest

from aprm_jax.config import ConfigError, read_config_file, validate

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

# What a notebook's cell of parameters ends with here. Those on arithmetic share one
# run, which the first of them to come trains.
SMALL: dict[str, dict[str, Any]] = {
    "harden": {"CUT": ":runlocal"},
    "ogda_matrix_games": {"GAMES": 20, "STARTS": 2},
    "progress": {"CUT": ":runlocal", "QUESTIONS": 3, "BUDGETS": (4,)},
    "quickstart": {"CUT": ":runlocal", "QUESTIONS": 3},
    "search": {"CUT": ":runlocal", "QUESTIONS": 3, "N": 4, "BUDGETS": (4,)},
}
OF_A_MACHINE = re.compile(
    r"/(home|root|Users|work|tmp|private|var|opt|mnt|content|workspace)/"
    r"|site-packages|[A-Z]:\\\\|Warning:"
)

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install .[test]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install .[test]")
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install .[test]")

of_each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _code(path: Path) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _parameters(cells: list[Any]) -> list[Any]:
    return [c for c in cells if "parameters" in c.metadata.get("tags", ())]


def _figures(cells: list[Any]) -> int:
    outputs = [output for cell in cells for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the notebooks run, and leave what they train, for one another."""
    return tmp_path_factory.mktemp("notebooks")


@of_each
def test_runs_from_top_to_bottom(path, monkeypatch, folder):
    # The kernel is a process of its own: it must find this checkout, draw into its
    # cells (a backend chosen in the environment would override it), and leave the
    # user's settings alone.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    inherited = os.environ.get("PYTHONPATH")
    parts = [str(REPOSITORY), *([inherited] if inherited else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(parts))
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv(
        "JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir
    )
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    notebook = nbformat.read(path, as_version=4)
    for cell in _parameters(notebook.cells):
        small = SMALL[path.stem].items()
        cell.source += "".join(f"\n{name} = {value!r}" for name, value in small)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()  # raises CellExecutionError with the cell and its traceback
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert _figures(code) == _figures(_code(path)) > 0
    streams = [o for cell in code for o in cell.outputs if o.output_type == "stream"]
    assert not [o.text for o in streams if "Warning" in o.text]


@of_each
def test_opens_with_a_badge_and_one_cell_that_installs(path):
    title, install, *rest = nbformat.read(path, as_version=4).cells
    assert "colab-badge.svg" in title.source and title.source.startswith("# ")
    assert "%pip install" in install.source and "aprm_jax" in install.source
    assert not any("pip install" in cell.source for cell in rest)


@of_each
def test_the_install_cell_asks_where_the_package_lies(path, tmp_path, monkeypatch):
    """No name is asked of an index before there is a release under it."""
    _, install, *_ = nbformat.read(path, as_version=4).cells
    asked: list[str] = []
    code = install.source.replace("%pip install -q {SOURCE}", "asked.append(SOURCE)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # which the cell changes
    with pytest.raises(RuntimeError, match="where the package lies"):
        exec(code, {"asked": asked})
    exec(code.replace('SOURCE = ""', 'SOURCE = "a.whl"'), {"asked": asked})
    assert asked == ["a.whl"]


@of_each
def test_is_stored_executed_in_order_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = _code(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs)
    assert path.stat().st_size < 600_000


@of_each
def test_names_no_place_of_the_machine_that_it_ran_on(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)
    assert not OF_A_MACHINE.findall(nbformat.writes(notebook))


@of_each
def test_what_is_made_small_stands_in_the_cell_of_parameters(path):
    cells = _parameters(_code(path))
    names = [re.findall(r"^(\w+) =", cell.source, re.MULTILINE) for cell in cells]
    small = SMALL[path.stem]
    assert len(cells) == bool(small)
    # All but a folder's name, which is the same at any size.
    assert [set(n) - {"RUN", "RL", "PRM"} for n in names] == [set(small)] * len(cells)


def test_notebooks_that_share_a_run_write_the_same_config():
    written = {
        cell.source
        for path in NOTEBOOKS
        for cell in _code(path)
        if cell.source.startswith("%%writefile arithmetic.py")
    }
    assert len(written) == 1


def _written(name: str, folder: Path) -> None:
    """The files that a notebook's cells write, in `folder`."""
    for cell in _code(REPOSITORY / "notebooks" / f"{name}.ipynb"):
        first, _, text = cell.source.partition("\n")
        if first.startswith("%%writefile"):
            (folder / first.split()[1]).write_text(text)


def test_any_folder_of_a_prm_is_hardened_and_a_misspelt_cut_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    _written("harden", tmp_path)
    Path("my_prm").mkdir()
    for name in ("my_prm", "./my_prm", "Qwen/Qwen2.5-Math-PRM-7B"):
        c = read_config_file("harden.py", name)
        assert c.prm.backbone == name and c.attack.verifiers == (name, "aprm")
    for cut in ("", "runlocal"):
        c = read_config_file("harden.py", cut)
        assert c.prm.backbone == "stand_in/prm"
    for wrong in ("runlocla", "no_prm"):
        with pytest.raises(ConfigError, match=f"after its colon, not {wrong!r}"):
            read_config_file("harden.py", wrong)


@pytest.mark.parametrize(
    ("name", "file"), [("progress", "progress.py"), ("search", "exact.py")]
)
def test_a_second_run_learns_from_the_run_that_is_named(
    name, file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    _written(name, tmp_path)
    for stage in ("solver", "generator", "prm_static", "aprm"):
        (tmp_path / "runs/big" / stage / "model").mkdir(parents=True)
        (tmp_path / "runs/big" / stage / "model" / "model.json").touch()
    for cut in ("", ":runlocal"):
        c = read_config_file(file, f"runs/big{cut}")
        assert c.prm.init_from == "runs/big/solver/model"
        assert (c.prm.updates == 10) is bool(cut)
        validate(c)
    with pytest.raises(ConfigError, match="'runs/none' has no solver/model"):
        read_config_file(file, "runs/none")
    with pytest.raises(ConfigError, match="not 'runlocla'"):
        read_config_file(file, "runs/big:runlocla")
    cells = [c.source for c in _code(REPOSITORY / "notebooks" / f"{name}.ipynb")]
    [trains] = [source for source in cells if "--config=arithmetic.py" in source]
    assert f"--config={file}:$1$2 " in trains


@of_each
def test_a_folder_of_the_packages_name_is_no_package(path, tmp_path, monkeypatch):
    _, install, *_ = nbformat.read(path, as_version=4).cells
    (tmp_path / "aprm_jax").mkdir()
    monkeypatch.chdir(tmp_path)
    found = importlib.machinery.PathFinder.find_spec("aprm_jax", [str(tmp_path)])
    assert found is not None  # a namespace
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    with pytest.raises(RuntimeError, match="where the package lies"):
        exec(install.source.replace("%pip install -q {SOURCE}", "pass"), {})
