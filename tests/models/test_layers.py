"""What XLA's CPU backend is led around: the same numbers as the plain road."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.models.layers import _product
from aprm_jax.models.positions import rotation


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
def test_a_products_gradients_are_numpys(inputs, outputs):
    rng = np.random.default_rng(inputs)
    rows, matrix, wanted = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((7, inputs), (inputs, outputs), (7, outputs))
    )
    out, pull = jax.vjp(jax.jit(_product), jnp.asarray(rows), jnp.asarray(matrix))
    np.testing.assert_allclose(out, rows @ matrix, rtol=1e-5)
    of_rows, of_matrix = pull(jnp.asarray(wanted))
    np.testing.assert_allclose(of_rows, wanted @ matrix.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_matrix, rows.T @ wanted, rtol=1e-5, atol=1e-6)


def test_rotary_angles_lose_nothing_in_the_product_that_keeps_them():
    positions = np.array([[0, 1, 7, 4095], [3, 3, 2, 100_000]], np.int32)
    # Compiled or not, sine and cosine may differ in the last place, not beyond.
    for got, function in zip(
        jax.jit(rotation, static_argnums=(1, 2))(positions, 8, 100.0),
        (np.cos, np.sin),
        strict=True,
    ):
        periods = np.float32(100.0) ** (np.arange(0, 8, 2, dtype=np.float32) / 8)
        angles = positions[..., None].astype(np.float32) / periods
        np.testing.assert_allclose(got, function(angles), atol=3e-3)
        np.testing.assert_allclose(got[:, :3], function(angles)[:, :3], atol=1e-6)
