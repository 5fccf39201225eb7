"""Settings of the whole test run: offline, on CPU, every warning and shape checked."""

from __future__ import annotations

import os
import pkgutil
import signal
from pathlib import Path

# Before anything imports JAX or Hugging Face's libraries, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compiling: less of LLVM's work halves it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

import jax
import jaxtyping
import pytest

# A shell starts what runs in the background with Ctrl-C ignored, and so would the
# commands be that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]

# Shapes and types of every function of the package, checked on every call; but not of
# the oracle, which has no arrays, and where checking would take most of the time.
jaxtyping.install_import_hook(
    [
        f"aprm_jax.{module.name}"
        for module in pkgutil.iter_modules([str(REPOSITORY / "aprm_jax")])
        if module.name != "oracle"
    ],
    "shape_checks.check",
)

jax.config.update("jax_numpy_rank_promotion", "raise")
# A second run compiles next to nothing.
_caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
jax.config.update("jax_compilation_cache_dir", str(_caches / "aprm_jax" / "tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


# Files of few tests and many minutes.
_LONG = ("multi_host/", "notebooks/", "sampling/test_session.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: at the end, one core would wait for the other."""
    tests = REPOSITORY / "tests"
    items.sort(
        key=lambda item: not item.path.relative_to(tests).as_posix().startswith(_LONG)
    )


@pytest.fixture(scope="module", autouse=True)
def _programs_find_room():
    """Hundreds of files compile more in one process than the kernel lets it map."""
    yield
    from aprm_jax.training.memory import drop_programs_at_limit

    drop_programs_at_limit()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the repository; skips without it."""
    folder = Path(os.environ.get("APRM_SHARED_DATA", REPOSITORY / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}: set APRM_SHARED_DATA")
    return folder.resolve()
