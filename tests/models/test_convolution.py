"""The fast forms for CPU equal XLA's, at every shape the networks have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from asccl_jax.errors import InputError
from asccl_jax.models.convolution import Convolution, TransposedConvolution, convolve, transposed_convolve


def gradients(implementation, image, kernel, stride):
    def scalar(image, kernel):
        # A function with a cotangent that differs everywhere.
        return jnp.sum(jnp.sin(convolve(image, kernel, stride=stride, implementation=implementation)))

    return jax.jit(jax.grad(scalar, argnums=(0, 1)))(image, kernel)


def random_case(side, channels, features, kernel_side, height=None):
    image_key, kernel_key = jax.random.split(jax.random.key(side))
    image = jax.random.normal(image_key, (2, height or side, side, channels))
    return image, jax.random.normal(kernel_key, (kernel_side, kernel_side, channels, features)) * 0.2


@pytest.mark.parametrize("implementation", ["phase", "shifts"])
@pytest.mark.parametrize(
    ("side", "channels", "features", "kernel_side", "stride"),
    [
        (8, 3, 5, 3, 1),  # XLA's own gradients
        (8, 3, 5, 3, 2),  # phases and squares, even
        (9, 4, 3, 3, 2),  # odd: the last phase is cut
        (2, 3, 3, 3, 2),
        (112, 2, 5, 3, 2),  # phases and rows
        (112, 2, 5, 3, 1),  # rows without phases
        (112, 2, 3, 3, 1),  # column by column
        (8, 3, 5, 1, 2),
        (9, 3, 5, 1, 2),
        (4, 3, 5, 1, 1),
    ],
)
def test_values_and_gradients_equal_those_of_xla(implementation, side, channels, features, kernel_side, stride):
    image, kernel = random_case(side, channels, features, kernel_side)
    expected = convolve(image, kernel, stride=stride, implementation="xla")
    found = convolve(image, kernel, stride=stride, implementation=implementation)
    assert found.shape == (2, -(-side // stride), -(-side // stride), features)
    # Sums of up to 2 * 112 * 112 float32 products in another order: 1e-5 of the largest value.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))
    pairs = zip(gradients(implementation, image, kernel, stride), gradients("xla", image, kernel, stride), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    ("implementation", "height", "features", "kernel_side", "stride"),
    [
        ("phase", 6, 5, 3, 1),
        ("phase", 6, 5, 3, 2),
        ("phase", 112, 5, 3, 2),
        ("phase", 112, 3, 3, 1),
        ("phase", 6, 5, 1, 1),
        ("phase", 6, 5, 3, "transposed"),
        ("shifts", 6, 5, 3, 2),
        ("shifts", 6, 5, 3, "transposed"),
        ("xla", 6, 5, 3, 2),
        ("xla", 6, 5, 3, "transposed"),
    ],
)
def test_a_batch_over_devices_gives_the_numbers_of_one(implementation, height, features, kernel_side, stride):
    image, kernel = random_case(6, 2, features, kernel_side, height=height)

    def scalar(image, kernel):
        if stride == "transposed":
            return jnp.sum(1 + jnp.sin(transposed_convolve(image, kernel, implementation=implementation)))
        return jnp.sum(1 + jnp.sin(convolve(image, kernel, stride=stride, implementation=implementation)))

    run = jax.jit(jax.value_and_grad(scalar, argnums=(0, 1)), compiler_options={"xla_backend_optimization_level": 0})
    value, expected = run(image, kernel)
    # Explicit is what `jax.make_mesh` gives unless told otherwise.
    for axis_type in (AxisType.Explicit, AxisType.Auto):
        mesh = jax.make_mesh((2,), ("d",), axis_types=(axis_type,), devices=jax.devices()[:2])
        placed = jax.device_put(image, NamedSharding(mesh, PartitionSpec("d")))
        # The kernel is where its user left it, which no mesh knows of.
        found_value, found = run(placed, kernel)
        assert found[0].sharding.is_equivalent_to(placed.sharding, 4)
        np.testing.assert_allclose(found_value, value, rtol=1e-5)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))


def test_oblong_maps_have_the_right_gradients():
    image, kernel = random_case(6, 3, 4, 3, height=9)
    for found, expected in zip(gradients("phase", image, kernel, 2), gradients("xla", image, kernel, 2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()))


def test_convolution_agrees_with_its_definition():
    image, kernel = random_case(5, 2, 3, 3)
    padded = np.pad(np.asarray(image, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    naive = np.zeros((2, 3, 3, 3))
    for row in range(3):
        for column in range(3):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            naive[:, row, column] = np.einsum("bklc,klcd->bd", window, np.asarray(kernel, np.float64))
    for implementation in ("xla", "phase", "shifts"):
        found = convolve(image, kernel, stride=2, implementation=implementation)
        # Eighteen float32 products a value.
        np.testing.assert_allclose(found, naive, rtol=1e-5, atol=1e-6)


def test_batched_gradients_agree():
    images, kernel = jax.random.normal(jax.random.key(0), (3, 2, 7, 7, 2)), jnp.full((3, 3, 2, 4), 0.1)

    def gradient(implementation):
        def scalar(kernel, image):
            return jnp.sum(convolve(image, kernel, stride=2, implementation=implementation) ** 2)

        return jax.jit(jax.vmap(jax.grad(scalar), in_axes=(None, 0)))(kernel, images)

    # Float32 sums of 2 * 4 * 4 products.
    np.testing.assert_allclose(gradient("phase"), gradient("xla"), rtol=1e-5, atol=1e-5)


def test_sharded_gradients_agree():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    image, kernel = jax.random.normal(jax.random.key(0), (8, 9, 9, 2)), jnp.full((3, 3, 2, 4), 0.1)
    sharded = jax.device_put(image, jax.NamedSharding(mesh, jax.P("data")))
    for found, expected in zip(gradients("phase", sharded, kernel, 2), gradients("xla", image, kernel, 2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_gradients_keep_their_type_and_accumulate_in_float32():
    image, kernel = random_case(64, 4, 4, 3)
    image, kernel = image.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    found = gradients("phase", image, kernel, 2)
    expected = gradients("xla", image.astype(jnp.float32), kernel.astype(jnp.float32), 2)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        # bfloat16 keeps 8 bits; the cotangent, itself rounded, is summed 2 * 32 * 32 times at most.
        np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=0, atol=0.02 * float(jnp.abs(exact).max()))


def test_float64_is_convolved_exactly():
    with jax.enable_x64(True):
        image = np.random.default_rng(0).standard_normal((1, 6, 6, 2))
        kernel = np.random.default_rng(1).standard_normal((3, 3, 2, 2))
        found = convolve(jnp.asarray(image), jnp.asarray(kernel))
        expected = convolve(jnp.asarray(image), jnp.asarray(kernel), implementation="xla")
        assert found.dtype == jnp.float64
        # Float64 rounding of eighteen products.
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_module_takes_the_fast_gradients_on_cpu_by_default():
    module = Convolution(3, stride=2)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))

    def scalar(variables, image):
        return jnp.sum(module.apply(variables, image))

    trace = str(jax.make_jaxpr(jax.grad(scalar, argnums=1))(variables, jnp.ones((1, 8, 8, 2))))
    # XLA's input gradient of a strided convolution dilates the cotangent; the phases do not.
    assert "lhs_dilation=(2, 2)" not in trace


def test_kernels_start_with_standard_deviation_a_tenth():
    kernel = Convolution(64).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    # 36864 draws: the relative error of a standard deviation is 0.4 %, four of them.
    np.testing.assert_allclose(jnp.std(kernel), 0.1, rtol=0.016)


def test_unknown_implementation_is_named():
    with pytest.raises(InputError, match="conv_implementation='fast'"):
        convolve(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1)), implementation="fast")


@pytest.mark.parametrize("implementation", ["phase", "shifts"])
@pytest.mark.parametrize(
    ("side", "channels", "kernel_side", "stride", "padding", "result"),
    [
        (8, 3, 4, 2, 2, 5),  # the discriminators' layers
        (9, 3, 4, 2, 2, 5),
        (2, 3, 4, 2, 2, 2),
        (112, 2, 4, 2, 2, 57),
        (8, 3, 4, 1, 2, 9),
        (10, 3, 7, 1, 0, 4),  # after reflected borders
        (112, 2, 7, 1, 0, 106),  # column by column
        (112, 2, 7, 1, 2, 110),
        (8, 3, 3, 1, 0, 6),
    ],
)
def test_other_kernels_and_paddings_equal_xla(implementation, side, channels, kernel_side, stride, padding, result):
    image, kernel = random_case(side, channels, 4, kernel_side)

    def computed(implementation):
        def scalar(image, kernel):
            maps = convolve(image, kernel, stride=stride, padding=padding, implementation=implementation)
            return jnp.sum(jnp.sin(maps)), maps

        return jax.jit(jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True))(image, kernel)

    (_, found), found_gradients = computed(implementation)
    (_, expected), expected_gradients = computed("xla")
    assert found.shape == (2, result, result, 4)
    # As above.
    for ours, theirs in zip((found, *found_gradients), (expected, *expected_gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("implementation", ["phase", "shifts"])
@pytest.mark.parametrize("height", [2, 5, 1])
def test_transposed_convolution_equals_xla_and_flax(implementation, height):
    image, kernel = random_case(6, 3, 4, 3, height=height)

    def computed(implementation):
        def scalar(image, kernel):
            maps = transposed_convolve(image, kernel, implementation=implementation)
            return jnp.sum(jnp.sin(maps)), maps

        return jax.jit(jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True))(image, kernel)

    (_, found), found_gradients = computed(implementation)
    (_, expected), expected_gradients = computed("xla")
    assert found.shape == (2, 2 * height, 12, 4)
    for ours, theirs in zip((found, *found_gradients), (expected, *expected_gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(1.0, float(jnp.abs(theirs).max())))
    flax_own = nn.ConvTranspose(4, (3, 3), (2, 2), ((1, 2), (1, 2)), use_bias=False)
    np.testing.assert_allclose(found, flax_own.apply({"params": {"kernel": kernel}}, image), atol=1e-5)


def test_transposed_convolution_spreads_each_pixel_over_its_kernel():
    image = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0)
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    spread = np.asarray(transposed_convolve(image, kernel))[0, :, :, 0]
    # PyTorch's kernel is the turned one: it lies round twice the pixel's place.
    np.testing.assert_array_equal(spread[1:4, 1:4], np.arange(9.0, 0.0, -1).reshape(3, 3))
    assert np.count_nonzero(spread) == 9


def test_reflected_borders_do_not_repeat_the_edge_and_biases_are_added():
    module = Convolution(1, kernel_size=3, reflect=True, use_bias=True)
    image = jnp.arange(9.0).reshape(1, 3, 3, 1)
    left = jnp.zeros((3, 3, 1, 1)).at[1, 0].set(1.0)
    found = module.apply({"params": {"kernel": left, "bias": jnp.array([0.5])}}, image)
    np.testing.assert_array_equal(found[0, 0, :, 0], [1.5, 0.5, 1.5])


def test_fresh_biases_are_within_pytorchs_bounds():
    for module, bound in (
        (Convolution(64, kernel_size=4, use_bias=True, deviation=0.02), (16 * 5) ** -0.5),
        (TransposedConvolution(64, deviation=0.02), (9 * 64) ** -0.5),
    ):
        params = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 5)))["params"]
        assert 0.9 * bound < np.abs(params["bias"]).max() <= bound
        np.testing.assert_allclose(np.std(params["kernel"]), 0.02, rtol=0.1)
