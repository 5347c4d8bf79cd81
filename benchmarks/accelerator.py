"""All that is to be known of a real accelerator, in one call of eight minutes.

  benchmarks/accelerator.sh --out=FOLDER
  benchmarks/accelerator.sh --parts=variants --out=ANOTHER

Measures agreement with the authors' numbers in float64; the step and the embedding beside the
PyTorch twin, turn by turn, in bfloat16 and float32 (TF32 on both sides) at several batch sizes, and
their share of the card's own rate in a large matrix product; the dearest kernels; memory with and
without rematerialization; time to compile with an empty and a full cache. The most important comes
first. Each part has a process and a time limit of its own; what does not fit in `--minutes` is left
out and named. `results.json` and `results.md` in the folder are written anew after each part.

Needs neither TensorFlow nor clu nor ml_collections; without PyTorch our side is measured alone.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator_parts import Order
from benchmarks.accelerator_plan import EXTRA, KINDS, Part, plan
from benchmarks.accelerator_report import as_markdown, outcome_line
from benchmarks.command_line import BACKBONES, DTYPES, list_of, one_of, positive, run, size_argument
from benchmarks.comparison import ALL_VARIANTS
from benchmarks.side import Work
from benchmarks.train_step import batch_fault
from magnifier_jax.errors import UserError
from magnifier_jax.files.whole_file import make_folder, write_json, write_text

_MACHINE_SECONDS = 60
_DEVICES = {"gpu": "gpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu", "cpu": "cpu"}
_ERROR_LINES = 15
_PROGRAM = ("-m", "benchmarks.accelerator_parts")


class Results:
  """What is known so far, in the folder's two files.

  Args:
    folder: an empty one, or none yet.
    minutes: that the call may take.

  Raises:
    UserError: when there are results in the folder.
  """

  def __init__(self, folder: Path, minutes: float):
    make_folder(folder)
    self.json, self.markdown = folder / "results.json", folder / "results.md"
    for file in (self.json, self.markdown):
      if file.exists():
        raise UserError(f"--out: {file} exists; name another folder")
    self.log = folder / "log.txt"
    self.content: dict[str, Any] = {
      "started": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
      "minutes": minutes,
      "machine": {},
      "parts": [],
    }

  def add(self, part: dict[str, Any]) -> None:
    """Keeps a part's outcome, and writes all."""
    self.content["parts"].append(part)
    self.write()
    print(outcome_line(part), flush=True)

  def write(self) -> None:
    """Writes both files, whole."""
    write_json(self.json, self.content)
    write_text(self.markdown, as_markdown(self.content))


class Processes:
  """Runs what is measured, each in a process, with compilation caches of this call alone.

  Args:
    scratch: a folder of this call.
    log: file that gets all that they print.
    on_cpu: keep JAX to the CPU.
  """

  def __init__(self, scratch: Path, log: Path, on_cpu: bool):
    self._output, self._log = scratch / "output.txt", log
    self._environment = os.environ | {
      "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"),
      "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
      "TRITON_CACHE_DIR": str(scratch / "triton"),
    }
    if on_cpu:
      self._environment["JAX_PLATFORMS"] = "cpu"

  def run(self, arguments: Sequence[str], seconds: float) -> tuple[str, str]:
    """Runs one for some seconds at most.

    Returns:
      How it ended, 'done', 'failed' or 'cut off', and what it said last if it failed.
    """
    with self._output.open("w") as file:
      process = subprocess.Popen(
        [sys.executable, *_PROGRAM, *arguments],
        stdout=file,
        stderr=subprocess.STDOUT,
        env=self._environment,
        start_new_session=True,  # so that its own processes end with it
      )
      try:
        state = "done" if process.wait(seconds) == 0 else "failed"
      except subprocess.TimeoutExpired:
        state = "cut off"
      finally:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = self._output.read_text(errors="replace")
    with self._log.open("a") as file:
      file.write(f"==== {' '.join(arguments)}: {state}\n{text}\n")
    lines = [line for line in text.splitlines() if line.strip()]
    return state, "\n".join(lines[-_ERROR_LINES:]) if state == "failed" else ""


def main() -> None:
  """Measures part by part until the time is up."""
  arguments = _parser().parse_args()
  deadline = time.monotonic() + 60 * arguments.minutes
  results = Results(arguments.out, arguments.minutes)
  with tempfile.TemporaryDirectory(prefix="accelerator_") as folder:
    processes = Processes(Path(folder), results.log, arguments.device == "cpu")
    found = Path(folder) / "found.json"
    device = _find_device(results, arguments.device, processes, found)
    work = Work(
      "train_step",
      device,
      arguments.batch[0],
      arguments.size,
      arguments.backbone,
      arguments.dtype[0],
      matrix_size=arguments.matrix_size,
    )
    for part in plan(arguments.parts, work, arguments.dtype, arguments.batch):
      order = Order(part, arguments.rounds, _variants(part, arguments), found)
      results.add(run_part(order, processes, deadline - time.monotonic()))
  print(f"results: {results.markdown}, {results.json}")
  failed = [part["name"] for part in results.content["parts"] if part["state"] == "failed"]
  if failed:
    sys.exit(f"error: failed: {', '.join(failed)}; see {results.log}")


def _find_device(results: Results, wanted: str, processes: Processes, found: Path) -> str:
  """Returns what to measure, and notes the machine.

  Raises:
    UserError: when JAX does not start, or finds a CPU alone where one was not asked for.
  """
  state, error = processes.run(["machine", str(found)], _MACHINE_SECONDS)
  results.content["machine"] = _read(found)
  results.write()
  if state != "done":
    raise UserError(f"JAX finds no device ({state}): {error}; see {results.log}")
  platform = results.content["machine"]["platform"]
  device = _DEVICES.get(platform)
  if wanted == "auto" and device == "cpu":
    raise UserError("JAX finds no accelerator; --device=cpu is for a rehearsal with tiny sizes")
  if device is None or wanted not in ("auto", device):
    raise UserError(f"--device={wanted}: JAX finds {platform}; leave the option out")
  return device


def _variants(part: Part, arguments: argparse.Namespace) -> list[str]:
  if part.kind == "variants":
    return [name for name in ALL_VARIANTS if name not in arguments.variants]
  return arguments.variants


def run_part(order: Order, processes: Processes, left: float) -> dict[str, Any]:
  """Runs a part within its limit.

  Args:
    order: what to do.
    processes: what runs it.
    left: seconds that are left for all parts.

  Returns:
    Its outcome, as `results.json` has it; what it found before it was cut off, too.
  """
  part = order.part
  outcome = {"name": part.name, "kind": part.kind, "limit": part.limit}
  if left < part.least:
    return outcome | {"state": "no time", "seconds": 0.0, "found": {}, "error": ""}
  order.result.unlink(missing_ok=True)
  start = time.monotonic()
  state, error = processes.run([order.to_json()], min(part.limit, left))
  return outcome | {
    "state": state,
    "seconds": time.monotonic() - start,
    "found": _read(order.result),
    "error": error,
  }


def _read(file: Path) -> dict[str, Any]:
  return json.loads(file.read_text()) if file.exists() else {}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="benchmarks/accelerator.sh",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  out = Path(os.environ.get("OUT", "accelerator_results"))
  add("--out", type=Path, default=out, help="folder for the results; default: $OUT, or %(default)s")
  add("--minutes", type=float, default=8.0, help="for all parts; default: %(default)s")
  kinds = [kind for kind in KINDS if kind not in EXTRA]
  add(
    "--parts",
    type=list_of(one_of(KINDS)),
    default=kinds,
    help=f"of {', '.join(KINDS)}; default: all but {' and '.join(EXTRA)}",
  )
  add("--device", choices=("auto", "gpu", "tpu", "cpu"), default="auto")
  batches = list_of(positive, batch_fault)
  add("--batch", type=batches, default=[64, 128, 256], help="images; default: 64,128,256")
  add(
    "--dtype",
    type=list_of(one_of(DTYPES)),
    default=["bfloat16", "float32"],
    help="default: bfloat16,float32",
  )
  add("--size", type=size_argument, default=(384, 192), help="height,width; default: 384,192")
  add("--backbone", choices=BACKBONES, default="resnet50")
  add("--rounds", type=positive, default=5, help="turns of each side; default: %(default)s")
  add(
    "--variants",
    type=list_of(one_of(ALL_VARIANTS)),
    default=["channels_last+compile"],
    help="of the twin; of several the fastest is found first; default: channels_last+compile",
  )
  add("--matrix_size", type=positive, help="of the products that measure the rate")
  return parser


if __name__ == "__main__":
  run(main)
