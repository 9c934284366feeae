"""The packages of a wheel; all else stands in pyproject.toml, which cannot say this.

The recipes in `configs/` go along inside `asccl_jax`: a package of so common a name would lie among those of others.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["asccl_jax*", "data_prep*", "DECA_torch_bridge*"]),
        "asccl_jax.configs",
    ],
    package_dir={"asccl_jax.configs": "configs"},
)
