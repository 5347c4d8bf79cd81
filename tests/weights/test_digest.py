import numpy as np
import pytest

from magnifier_jax.weights.digest import weights_sha256


def _trees():
  params = {"b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "a": np.ones(2)}
  return params, {"mean": np.zeros(3, np.float32)}


def test_the_order_of_a_tree_does_not_count():
  params, batch_stats = _trees()
  assert weights_sha256(params, batch_stats) == weights_sha256(
    dict(reversed(params.items())), batch_stats
  )


def test_the_memory_layout_does_not_count():
  params, batch_stats = _trees()
  expected = weights_sha256(params, batch_stats)
  params["b"]["kernel"] = np.asfortranarray(params["b"]["kernel"])
  params["a"] = params["a"].astype(">f8")
  assert weights_sha256(params, batch_stats) == expected


@pytest.mark.parametrize("change", ["value", "name", "shape", "dtype", "statistics"])
def test_every_change_of_the_weights_counts(change: str):
  params, batch_stats = _trees()
  before = weights_sha256(params, batch_stats)
  kernel = params["b"]["kernel"]
  match change:
    case "value":
      kernel[1, 2] = np.nextafter(kernel[1, 2], 0)
    case "name":
      params["b"] = {"bias": kernel}
    case "shape":
      params["b"]["kernel"] = kernel.reshape(3, 2)
    case "dtype":
      params["b"]["kernel"] = kernel.view(np.int32)
    case "statistics":
      batch_stats["mean"][0] = 1
  assert weights_sha256(params, batch_stats) != before
