"""Puts `configs/` into the wheel as a part of the package; all else is in pyproject.toml."""

from setuptools import find_packages, setup

# In the checkout they lie beside the package, where `--config=configs/cuhk03.py` finds them.
setup(
  packages=[*find_packages(include=["magnifier_jax*"]), "magnifier_jax.configs"],
  package_dir={"magnifier_jax.configs": "configs"},
)
