"""Native products: equal to float64 to the rounding of bfloat16, in every transformation; the same bits each time."""

import concurrent.futures

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import export, lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxcls import kernels
from jaxcls.kernels import native
from jaxcls.kernels.native import library
from jaxcls.kernels.native.library import Unavailable

try:
    KERNELS = library.load()
except Unavailable as reason:
    pytest.skip(f"no native kernels here: {reason}", allow_module_level=True)
if not KERNELS.bfloat16_products:
    pytest.skip("this processor has no products in bfloat16", allow_module_level=True)

BOTH = [(False, False), (False, True), (True, False), (True, True)]


@pytest.fixture(autouse=True)
def _wanted(monkeypatch):
    monkeypatch.setenv("JAXCLS_NATIVE", "1")


def drawn(*shapes):
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=shape), jnp.bfloat16) for shape in shapes]


def factors(transposed, rows=5, inner=6, columns=7, pairs=()):
    first = (inner, rows) if transposed[0] else (rows, inner)
    second = (columns, inner) if transposed[1] else (inner, columns)
    return drawn((*pairs, *first), (*pairs, *second))


def exact(a, b, transposed=(False, False)):
    """In float64, or in float32 where it is traced."""
    wide = (lambda x: np.asarray(x, np.float64)) if isinstance(a, np.ndarray) else (lambda x: x.astype(jnp.float32))
    a, b = wide(a), wide(b)
    return (a.swapaxes(-1, -2) if transposed[0] else a) @ (b.swapaxes(-1, -2) if transposed[1] else b)


def is_native(function, *arguments):
    return "jaxcls_product" in jax.jit(function).lower(*arguments).as_text()


def close(actual, expected, tolerance=2**-8):
    """To a part of the largest number: each is a sum of many that cancel, and rounded once, to 8 bits."""
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        other = np.asarray(other, np.float64)
        np.testing.assert_allclose(np.asarray(one, np.float64), other, rtol=0, atol=tolerance * (1 + abs(other).max()))


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    sizes=st.tuples(*[st.integers(1, 70)] * 3),
    pairs=st.lists(st.integers(1, 3), max_size=3),
    transposed=st.sampled_from(BOTH),
)
def test_any_shape_matches_float64(sizes, pairs, transposed):
    a, b = factors(transposed, *sizes, tuple(pairs))
    assert native.supports_product(a, b)
    expected = exact(np.asarray(a), np.asarray(b), transposed)
    # Products of numbers of bfloat16 are exact in float32.
    # Numbers of float32 are rounded, and these are rounded already.
    wide = [(a, b), (a.astype(jnp.float32), b), (a, b.astype(jnp.float32))]
    products = jax.jit(lambda pairs: [native.product(*pair, transposed) for pair in pairs])(wide)
    close(products, [expected] * 3, 1e-5)


def test_products_are_accumulated_in_float32():
    # One after another in half precision they would stop at 256.
    assert (
        native.product(*(jnp.ones(shape, jnp.bfloat16) for shape in ((2, 4096), (4096, 3)))).tolist()
        == [[4096.0] * 3] * 2
    )


@pytest.mark.parametrize("pairs", [(), (2, 3)])
@pytest.mark.parametrize("transposed", BOTH)
def test_first_and_second_derivatives_match_float32(transposed, pairs):
    a, b = factors(transposed, pairs=pairs)

    def orders(product):
        def slope(a, b):
            # Not linear, so that the second derivative is not zero.
            return jax.grad(lambda a, b: jnp.sum(jnp.sin(product(a, b).astype(jnp.float32))), argnums=(0, 1))(a, b)

        def length(a, b):
            return sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in slope(a, b))

        return lambda a, b: (slope(a, b), jax.grad(length, (0, 1))(a, b))

    ours = orders(lambda a, b: native.product(a, b, transposed))
    assert is_native(ours, a, b)
    # What is rounded goes through a sine, and is summed again.
    close(jax.jit(ours)(a, b), orders(lambda a, b: exact(a, b, transposed))(a, b), 2**-5)


def layer(x, kernel):
    return kernels.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


@pytest.mark.parametrize("product", [layer, kernels.linear])
def test_only_bfloat16_dense_layers_are_native(product):
    x, kernel = drawn((2, 3, 5), (5, 4))
    assert is_native(product, x, kernel)
    close(product(x, kernel), exact(np.asarray(x), np.asarray(kernel)))
    assert not is_native(product, x.astype(jnp.float32), kernel.astype(jnp.float32))
    assert not native.supports_product(x.astype(jnp.float32), kernel)
    assert not native.supports_product(x, kernel.astype(jnp.float16))
    assert not native.supports_product(x[:0], kernel)
    with native.portable():
        assert not is_native(lambda x, kernel: product(x, kernel), x, kernel)
    for platform in ("cuda", "tpu"):
        traced = jax.jit(lambda x, kernel: jax.vjp(product, x, kernel)[1](product(x, kernel))).trace(x, kernel)
        assert "jaxcls_product" not in traced.lower(lowering_platforms=(platform,)).as_text()
    (count,) = export.symbolic_shape("count")
    rows = jax.ShapeDtypeStruct((count, 5), jnp.bfloat16)
    assert "jaxcls_product" not in export.export(jax.jit(product))(rows, kernel).mlir_module()


def test_layer_rounds_its_kernel_but_not_its_gradient():
    x, kernel = drawn((6, 5))[0], jax.random.normal(jax.random.key(0), (5, 4))
    loss = lambda kernel: jnp.sum(kernels.linear(x, kernel, dtype=jnp.bfloat16).astype(jnp.float32))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(kernel)
    assert gradient.dtype == jnp.float32
    close(gradient, np.asarray(x, np.float64).sum(0)[:, None] * np.ones((5, 4)), 1e-6)
    assert kernels.linear(x, kernel, jnp.ones(4)).dtype == jnp.bfloat16


@pytest.mark.parametrize("devices", [1, 2])
def test_bfloat16_attention_is_native(devices):
    arrays = drawn(*[(4, 40, 2, 8)] * 4)
    present = jnp.arange(40)[None] < jnp.array([40, 13, 1, 0])[:, None]
    if devices > 1:
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        arrays, present = jax.device_put((arrays, present), NamedSharding(mesh, PartitionSpec("data")))

    def gradients(function):
        def all_of(arrays, present):
            *inputs, cotangent = arrays
            value, pullback = jax.vjp(lambda *x: function(*x, present), *inputs)
            return value, pullback(cotangent)

        return jax.jit(all_of)

    def plain(query, key, value, present):
        return jax.nn.dot_product_attention(query, key, value, mask=present[:, None, None, :])

    assert devices > 1 or is_native(lambda arrays: kernels.attention(*arrays[:3], present), arrays)
    expected = gradients(plain)([array.astype(jnp.float32) for array in arrays], present)
    # Scores are rounded before the softmax, and weights before they are summed with.
    close(gradients(kernels.attention)(arrays, present), expected, 2**-6)


def test_scan_and_remat_give_identical_bits():
    x, kernel = drawn((6, 5), (5, 5))

    def twice(kernel):
        return layer(jnp.tanh(layer(x, kernel)), kernel)

    def scanned(kernel):
        return lax.scan(lambda x, _: (jax.checkpoint(layer)(x, kernel), None), x, length=2)[0]

    def gradient(function):
        return jax.jit(jax.grad(lambda kernel: jnp.sum(function(kernel).astype(jnp.float32) ** 2)))(kernel)

    assert is_native(scanned, kernel)
    chex.assert_trees_all_equal(gradient(jax.checkpoint(twice)), gradient(twice))
    close(gradient(scanned), gradient(lambda kernel: exact(exact(x, kernel), kernel)), 2**-6)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2)])
def test_gradients_under_vmap(axes):
    x, kernel = drawn((6, 5), (5, 4))
    arguments = [
        array if axis is None else jnp.stack([array, 2 * array, -array], axis)
        for axis, array in zip(axes, (x, kernel), strict=True)
    ]

    def mapped(product):
        return jax.vmap(jax.grad(lambda x, kernel: jnp.sum(product(x, kernel).astype(jnp.float32) ** 2), (0, 1)), axes)

    assert is_native(mapped(layer), *arguments)
    close(mapped(layer)(*arguments), mapped(exact)(*arguments), 2**-6)


SHARDED = {
    "rows": (PartitionSpec("data"), PartitionSpec()),
    "what is summed over": (PartitionSpec(None, "data"), PartitionSpec("data")),
    "columns": (PartitionSpec(), PartitionSpec(None, "data")),
    "rows and columns": (PartitionSpec("data"), PartitionSpec(None, "data")),
    "nothing": (PartitionSpec(), PartitionSpec()),
}


@pytest.mark.parametrize("over", SHARDED)
def test_sharded_products_compute_each_shard_on_its_device(over):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    arrays = drawn((6, 4), (4, 8))
    x, kernel = (
        jax.device_put(array, NamedSharding(mesh, spec)) for array, spec in zip(arrays, SHARDED[over], strict=True)
    )

    def gradients(product):
        loss = lambda x, kernel: jnp.sum(jnp.sin(product(x, kernel).astype(jnp.float32)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, (0, 1)))

    compiled = gradients(layer).lower(x, kernel).compile()
    close(compiled(x, kernel), gradients(exact)(*arrays), 2**-6)
    if over == "rows":
        assert "all-gather" not in compiled.as_text()


def test_batched_products_are_sharded():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    a, b = drawn((4, 3, 5, 6), (4, 3, 6, 7))
    split = NamedSharding(mesh, PartitionSpec("data"))
    compiled = jax.jit(native.product).lower(*jax.device_put((a, b), split)).compile()
    assert "all-gather" not in compiled.as_text()
    close(compiled(*jax.device_put((a, b), split)), exact(np.asarray(a), np.asarray(b)))


def test_results_are_identical_across_threads():
    x, kernel, y = drawn((300, 200), (200, 100), (300, 100))

    @jax.jit
    def all_three(x, kernel, y):
        value, pullback = jax.vjp(layer, x, kernel)
        return value, pullback(y)

    first = all_three(x, kernel, y)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        others = [*pool.map(lambda _: jax.block_until_ready(all_three(x, kernel, y)), range(20))]
    for other in others:
        chex.assert_trees_all_equal(other, first)
    held = KERNELS.functions.jaxcls_primitives(), KERNELS.functions.jaxcls_workspace_bytes()
    jax.block_until_ready(all_three(x, kernel, y))
    assert (KERNELS.functions.jaxcls_primitives(), KERNELS.functions.jaxcls_workspace_bytes()) == held
