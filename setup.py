"""The packages of a wheel. The recipes in `configs/`, a name too common for a package that others share a folder with,
go along as data of `asccl_jax`; all else stands in pyproject.toml, which cannot say this.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["asccl_jax*", "data_prep*", "DECA_torch_bridge*"]), "asccl_jax.configs"],
    package_dir={"asccl_jax.configs": "configs"},
)
