"""Embedding of images by the whole network in evaluation, beside the PyTorch twin at its best.

  python -m benchmarks.embedding --batch=8,16,64
  python -m benchmarks.embedding --device=gpu --batch=64,256 --dtype=float32,bfloat16

The parts are those that the network predicts. The images lie on the device already. Each side has a
process of its own, which sleeps while it is the other's turn. The twin runs in inference mode in
the fastest of `--variants`, which is looked for at every batch size and dtype; where it is
compiled, its weights are constants, folded with BatchNorm.
"""

from benchmarks.command_line import create_parser, run, run_comparisons
from magnifier_jax.devices.host_memory import restart_with_huge_pages


def main() -> None:
  """Measures and prints."""
  arguments = create_parser(__doc__, (8, 16, 64), lambda batch_size: None).parse_args()
  run_comparisons("embedding", arguments)


if __name__ == "__main__":
  restart_with_huge_pages()  # for both sides, as users have it
  run(main)
