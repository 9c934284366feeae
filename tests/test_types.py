"""What is refused before the metric sees it, whether or not it is traced yet."""

import jax
import jax.numpy as jnp
import pytest

from asccl_jax.errors import InputError
from asccl_jax.types import check_image


@pytest.mark.parametrize("shape", [(2, 3, 40, 40), (40, 40, 3), (2, 40, 40, 4), (2, 40, 40, 1)])
def test_images_of_another_layout_are_refused(shape):
    for check in (check_image, jax.jit(check_image, static_argnums=1)):
        with pytest.raises(
            InputError, match=r"generated: shape .* expected \(batch, height, width, 3\), channels last"
        ):
            check(jnp.zeros(shape), "generated")


def test_images_as_the_metric_takes_them_pass():
    for check in (check_image, jax.jit(check_image, static_argnums=1)):
        check(jnp.full((2, 40, 33, 3), -1.0), "generated")
