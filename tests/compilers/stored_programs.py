"""Programs as compilers print them, stored: a loop of five turns, and a product over the batch.

    def step(kernel, x):  # [128, 128] float32, replicated and donated; [64, 128] float32, sharded
      def turn(hidden, _):
        return jnp.tanh(hidden @ kernel), None  # line 7

      hidden, _ = jax.lax.scan(turn, x, None, length=5)
      return kernel - x.T @ hidden  # line 10

Compiled with jax 0.10.2 for v5e:2x2 (libtpu 0.0.42.1) and for two H100. Of `backend_config` only
the estimated cycles and the numbers of turns are left, and folders are /package.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent
TPU_LOOP = (_FOLDER / "tpu_loop.hlo").read_text()
GPU_LOOP = (_FOLDER / "gpu_loop.hlo").read_text()
