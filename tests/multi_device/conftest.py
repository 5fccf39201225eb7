"""Runs programs on several devices: their number is fixed before JAX is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
CACHE_OPTION = "jax_compilation_cache_dir"


@pytest.fixture(scope="session")
def run_with_devices() -> Callable[..., str]:
    """run(name, *args, n=8): what a file of programs/ prints, having n CPU devices.

    It may import `aprm_jax` and what is in tests/; where it fails, so does the test,
    with its traceback.
    """

    def run(name: str, *args: object, n: int = 8) -> str:
        # Little is computed and much is compiled: no optimisation, and one cache.
        flags = (
            f"--xla_force_host_platform_device_count={n} "
            "--xla_backend_optimization_level=0"
        )
        cache = getattr(jax.config, CACHE_OPTION) or ""
        result = subprocess.run(
            [sys.executable, str(PROGRAMS / name), *map(str, args)],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
                "JAX_NUMPY_RANK_PROMOTION": "raise",
                "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
                "PYTHONPATH": os.pathsep.join(
                    [str(REPOSITORY), str(REPOSITORY / "tests")]
                ),
            },
            capture_output=True,
            text=True,
        )
        if result.returncode:
            pytest.fail(
                f"exit code {result.returncode}\n{result.stderr}", pytrace=False
            )
        return result.stdout

    return run
