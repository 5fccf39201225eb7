from pathlib import Path

import command
import pytest


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A quickstart:runlocal that nothing interrupted; tests copy it, or only read."""
    folder = tmp_path_factory.mktemp("whole")
    code, output = command.call(
        folder, command.QUICKSTART, command.CACHE, "--workdir=run"
    )
    assert code == 0, output
    return folder / "run"
