"""Small networks of the kinds that score faces, with drawn weights: every layer of the published ones, few channels."""

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.weights import FaceNetwork, face_module, module_settings

TINY_FACE_NETWORKS = {
    "resnet-face": {"widths": (4, 6, 8, 10), "embedding": 12, "image_size": 32},
    "efficient-face": {
        "stem_width": 5,
        "stage_widths": (10, 12, 16),
        "stage_units": (2, 1, 2),
        "features": 14,
        "image_size": 64,
    },
    "arcface": {
        "stage_blocks": (1, 2, 1, 1),
        "stage_widths": (4, 8, 12, 16),
        "embedding": 9,
        "image_size": 48,
    },
    "syncnet": {
        "lip_widths": (4, 5, 6, 7, 8, 9),
        "audio_widths": (5, 4, 7, 6, 9, 8),
        "hidden": 10,
        "embedding": 11,
    },
}


def drawn_network(name: str, seed: int = 0) -> FaceNetwork:
    module = face_module(name, TINY_FACE_NETWORKS[name])
    inputs = [jnp.zeros((1, *shape), jnp.float32) for shape in module.input_shapes]
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        values = random.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            values *= (2 / np.prod(leaf.shape[:-1])) ** 0.5
        elif path[-1].key in ("scale", "var"):
            values = 1 + 0.1 * np.abs(values)
        else:
            values *= 0.1
        return values.astype(np.float32)

    return FaceNetwork(name, jax.tree_util.tree_map_with_path(draw, shapes), module_settings(module), "0" * 64)
