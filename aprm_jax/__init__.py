"""Process reward models trained against a learned adversary, in JAX.

`aprm_jax.Solver` writes solutions, `aprm_jax.PRM` scores their steps and ranks them,
`aprm_jax.Generator` writes steps that a PRM may fall for; each loads a folder that a
job has written, or a model of Hugging Face. `aprm_jax.search` finds better answers with
a solver and a PRM. `aprm_jax.grade` compares a solution's answer with a reference,
without JAX. Training starts with
`python -m aprm_jax.main --config=FILE`.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aprm_jax.answering import search
    from aprm_jax.api import PRM, Generator, Solver, grade

__version__ = "0.1.0"
__all__ = ["PRM", "Generator", "Solver", "__version__", "grade", "search"]

# transformers advises everybody to install PyTorch, which nothing here needs.
logging.getLogger("transformers").addFilter(
    lambda record: "PyTorch was not found" not in record.getMessage()
)


def __getattr__(name: str) -> Any:
    # Lazy: `import aprm_jax` must not start JAX, whose flags a caller may still set.
    if name in ("PRM", "Generator", "Solver"):
        return getattr(importlib.import_module("aprm_jax.api"), name)
    if name == "search":  # a package that may be called
        return importlib.import_module("aprm_jax.search")
    if name == "grade":  # the same one as in `api`, which needs JAX
        return importlib.import_module("aprm_jax.oracle.answers").grade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
