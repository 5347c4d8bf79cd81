"""MagnifierNet person re-identification in JAX.

`load` opens a trained network, `Gallery` keeps and searches what it embedded. Importing this
package imports neither JAX nor TensorFlow; using them does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from magnifier_jax.retrieval.embedder import load
  from magnifier_jax.retrieval.gallery import Gallery

__all__ = ["Gallery", "load"]


def __getattr__(name: str) -> Any:
  if name == "load":
    from magnifier_jax.retrieval.embedder import load

    return load
  if name == "Gallery":
    from magnifier_jax.retrieval.gallery import Gallery

    return Gallery
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
