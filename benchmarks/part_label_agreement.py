"""How well two folders of part labels agree: intersection over union of each part.

  python -m benchmarks.part_label_agreement data/cuhk03-np_ps_label /tmp/labels

Over the pixels of all images that have labels in both folders.
"""

import sys
from pathlib import Path

import numpy as np

from magnifier_jax.body_parts import NUM_PARTS, PART_NAMES
from magnifier_jax.data.image_files import load_part_labels


def confusion(first: Path, second: Path) -> tuple[np.ndarray, int]:
  """Counts pixels by their part in either folder.

  Args:
    first: folder of PNG part labels.
    second: another one, with the same relative paths.

  Returns:
    (8, 8) int64 pixels, row: part in `first`; and the number of images in both.
  """
  counts, images = np.zeros((NUM_PARTS, NUM_PARTS), np.int64), 0
  for file in sorted(second.rglob("*.png")):
    other = first / file.relative_to(second)
    if other.is_file():
      pair = (load_part_labels(path).astype(np.int64).ravel() for path in (other, file))
      row, column = pair
      counts += np.bincount(row * NUM_PARTS + column, minlength=NUM_PARTS**2).reshape(
        NUM_PARTS, NUM_PARTS
      )
      images += 1
  return counts, images


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
  """Returns the agreement of each part, (8,) float, 0…1; NaN for a part that is in neither."""
  union = counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)
  return np.where(union > 0, np.diag(counts) / np.maximum(union, 1), np.nan)


def main(argv: list[str]) -> int:
  """Prints the agreement; returns the exit code."""
  if len(argv) != 2:
    print("usage: python -m benchmarks.part_label_agreement FOLDER FOLDER", file=sys.stderr)
    return 2
  counts, images = confusion(*map(Path, argv))
  if not images:
    print(f"error: no image has labels in both {argv[0]} and {argv[1]}", file=sys.stderr)
    return 2
  agreement = intersection_over_union(counts)
  print(f"{images:,} images; {100 * np.trace(counts) / counts.sum():.1f} % of pixels agree")
  for part, value in zip(PART_NAMES, agreement):
    print(f"{part:<12}{value:.3f}")
  print(f"{'mean':<12}{np.nanmean(agreement):.3f}")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
