"""What XLA's CPU backend is led around: the same numbers as the plain road."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.models.cpu_kernels import _as_products, product
from aprm_jax.models.positions import rotation


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
def test_a_products_gradients_are_numpys(inputs, outputs):
    rng = np.random.default_rng(inputs)
    rows, matrix, wanted = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((7, inputs), (inputs, outputs), (7, outputs))
    )
    out, pull = jax.vjp(jax.jit(product), jnp.asarray(rows), jnp.asarray(matrix))
    np.testing.assert_allclose(out, rows @ matrix, rtol=1e-5)
    of_rows, of_matrix = pull(jnp.asarray(wanted))
    np.testing.assert_allclose(of_rows, wanted @ matrix.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_matrix, rows.T @ wanted, rtol=1e-5, atol=1e-6)


def test_the_product_that_keeps_rotary_angles_changes_no_bit():
    angles = np.random.default_rng(0).uniform(-1, 1, (2, 7, 16)).astype(np.float32)
    for got in jax.jit(_as_products)(angles, angles):
        np.testing.assert_array_equal(got, angles)


def test_rotary_angles_are_numpys():
    positions = np.array([[0, 1, 7], [3, 3, 2]], np.int32)
    periods = np.float32(100.0) ** (np.arange(0, 8, 2, dtype=np.float32) / 8)
    angles = positions[..., None].astype(np.float32) / periods
    cos, sin = jax.jit(rotation, static_argnums=(1, 2))(positions, 8, 100.0)
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sin, np.sin(angles), atol=1e-6)
