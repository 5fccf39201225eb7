"""What is told of a name that means no model."""

from __future__ import annotations

import traceback

import pytest

import aprm_jax
from aprm_jax.models.io import ModelFileError


@pytest.mark.parametrize("name", ["runs/mine", "a" * 300])
def test_nothing_there_is_told_in_one_message(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelFileError, match=r"no such folder|File name too") as caught:
        aprm_jax.PRM.load(name)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback") == 1
