"""MagnifierNet person re-identification in JAX."""
