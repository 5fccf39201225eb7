"""Every notebook runs from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install .[test]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install .[test]")
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install .[test]")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, monkeypatch, tmp_path):
    # The kernel is a process of its own: it must find this checkout, draw into its
    # cells (a backend chosen in the environment would override it), and leave the
    # user's settings alone.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    inherited = os.environ.get("PYTHONPATH")
    parts = [str(REPOSITORY), *([inherited] if inherited else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(parts))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()  # raises CellExecutionError with the cell and its traceback
    figures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert figures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opens_with_a_badge_and_one_cell_that_installs(path):
    title, install, *rest = nbformat.read(path, as_version=4).cells
    assert "colab-badge.svg" in title.source and title.source.startswith("# ")
    assert "%pip install" in install.source and "aprm_jax" in install.source
    assert not any("pip install" in cell.source for cell in rest)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_executed_in_order_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs)
    assert path.stat().st_size < 600_000
