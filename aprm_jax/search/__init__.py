"""Search with a verifier: trees, methods, what they cost, and which answer wins.

The package itself is the function `aprm_jax.search` of the API, of the same name.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A module that may be called: an import of it must not hide the function."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `aprm_jax.answering.search`, which starts JAX."""
        return importlib.import_module("aprm_jax.answering").search(*args, **options)


sys.modules[__name__].__class__ = _Callable
