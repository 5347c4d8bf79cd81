"""Command-line tools beside training: `python -m magnifier_jax.tools.NAME`."""
