"""The other side of the speed benchmarks: the PyTorch twin, in the variant that is asked for."""

from collections.abc import Callable

import torch
import torch._dynamo
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cuhk03_config import NUM_PEOPLE
from benchmarks.pytorch_magnifier import Options, Twin
from benchmarks.pytorch_network import MagnifierNet
from benchmarks.side import Peaks, Side, Work, draw_batch
from magnifier_jax.errors import UserError
from magnifier_jax.train_state import Batch

_COMPILE_MODES = {
  "compile": "default",
  "reduce-overhead": "reduce-overhead",
  "max-autotune": "max-autotune",
}


class PytorchSide(Side):
  """Steps of the PyTorch twin.

  Args:
    work: what to do.
    variant: memory format, then '+' and a mode if it is compiled: of `comparison.ALL_VARIANTS`.

  Raises:
    UserError: when PyTorch finds no GPU, and the work wants one.

  Attributes:
    twin: the network.
  """

  def __init__(self, work: Work, variant: str):
    super().__init__(work)
    if work.device == "gpu" and not torch.cuda.is_available():
      raise UserError("--device=gpu: PyTorch finds no GPU; install its CUDA build")
    memory_format, _, mode = variant.partition("+")
    options = Options(
      device="cuda" if work.device == "gpu" else "cpu",
      channels_last=memory_format == "channels_last",
      fused_adam=True,
      compile_mode=_COMPILE_MODES.get(mode),
      bfloat16_autocast=work.dtype == "bfloat16",
      tf32=True,
    )
    torch.manual_seed(0)
    if work.task == "embedding" and work.device == "cpu":
      # Else the graph breaks at the LSTM, and the rest is compiled again until PyTorch gives up. A
      # training step is no faster for it, and takes five times as long to compile.
      torch._dynamo.config.allow_rnn = True
    self.twin = Twin(work.config(), NUM_PEOPLE, options)
    arrays = draw_batch(work)
    tensors = {name: torch.from_numpy(array) for name, array in arrays._asdict().items()}
    tensors["person_id"] = tensors["person_id"].long()
    self._batch = Batch(**{name: tensor.to(options.device) for name, tensor in tensors.items()})

  def run(self, steps: int) -> None:
    """Does steps one after the other, and waits for the last."""
    for _ in range(steps):
      if self.work.task == "train_step":
        self.twin.step(self._batch)
      else:
        self.twin.embed(self._batch.image)
    self._wait()

  def matrix_product(self, size: int) -> Callable[[int], None]:
    """Draws square matrices in the work's dtype; what it returns multiplies them n times."""
    dtype, device = getattr(torch, self.work.dtype), self._batch.image.device
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply(times: int) -> None:
      for _ in range(times):
        torch.mm(a, b)
      self._wait()

    return multiply

  def peaks(self) -> Peaks:
    """Returns the most memory so far."""
    if self.work.device == "cpu":
      return super().peaks()
    return Peaks(None, torch.cuda.max_memory_allocated() / 2**20)

  def model_operations(self) -> int:
    """Returns multiplications and additions of one step.

    Those of the convolutions and matrix products that the definition of the network needs, as
    PyTorch counts them by shapes: twice the multiply-adds of the forward pass, and of the gradients
    by weights and by all inputs but the images. What a compiler adds or saves does not count.
    """
    with torch.device("meta"):
      network = MagnifierNet(self.work.config().model, NUM_PEOPLE)
    batch = Batch(**{name: tensor.to("meta") for name, tensor in self._batch._asdict().items()})
    images = batch.image.permute(0, 3, 1, 2).float()
    with FlopCounterMode(display=False) as counter:
      if self.work.task == "train_step":
        output = network(images, batch.part_labels, batch.keep_mask)
        sum(x.sum() for x in output if x is not None and x.requires_grad).backward()
      else:
        with torch.no_grad():
          network.eval().embed(images)
    return counter.get_total_flops()

  def _wait(self) -> None:
    if self.work.device == "gpu":
      torch.cuda.synchronize()
