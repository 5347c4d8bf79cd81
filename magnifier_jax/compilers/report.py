"""An estimate as text and as JSON."""

from typing import Any

from magnifier_jax.compilers.estimate import Dear, Estimate
from magnifier_jax.compilers.fitting import Fit

_GIB = 2**30
_SHOWN_SOURCES = 3
_SHOWN_RESULTS = 2


def as_text(estimate: Estimate) -> str:
  """Returns an estimate in lines for a console."""
  target, memory = estimate.target, estimate.memory
  lines = [
    ("images", f"{estimate.images} on {_chips(estimate)}, {_per_chip(estimate):g} on each"),
    (
      f"memory of a {_device(estimate)}",
      f"{memory.total / _GIB:.2f} of {target.memory_bytes / _GIB:.1f} GiB: arguments "
      f"{memory.arguments / _GIB:.2f}, temporaries {memory.temporaries / _GIB:.2f}, outputs "
      f"{memory.outputs / _GIB:.2f}, of which in the arguments' place {memory.aliases / _GIB:.2f}"
      + ("" if estimate.fits else "; does NOT fit"),
    ),
    ("collectives", _collectives(estimate)),
    *_time(estimate),
  ]
  width = max(len(title) for title, _ in lines) + 2
  text = "\n".join(f"{title:<{width}}{value}" for title, value in lines)
  return f"{text}\n\n{_dearest(estimate)}" if estimate.dearest else text


def fit_as_text(fit: Fit, chips: int) -> str:
  """Returns the line about the largest batch."""
  tried = ", ".join(f"{images} {'fits' if fits else 'no'}" for images, fits in fit.tried.items())
  if fit.images is None:
    return f"largest batch  not even {min(fit.tried)} images fit ({tried})"
  return f"largest batch  {fit.images} images, {fit.images / chips:g} a chip ({tried})"


def as_json(estimate: Estimate) -> dict[str, Any]:
  """Returns an estimate as JSON's types; None is what the target cannot tell."""
  target, memory = estimate.target, estimate.memory
  return {
    "target": target.name,
    "chips": target.chips,
    "devices_per_chip": target.devices_per_chip,
    "images": estimate.images,
    "images_per_chip": _per_chip(estimate),
    "estimated_cycles": estimate.cycles,
    "estimated_ms": estimate.milliseconds,
    "peak_share": estimate.peak_share,
    "flops": estimate.flops,
    "kernels": estimate.kernels,
    "traffic_bytes": estimate.traffic_bytes,
    "traffic_ms": estimate.traffic_milliseconds,
    "arguments_bytes": memory.arguments,
    "temporaries_bytes": memory.temporaries,
    "output_bytes": memory.outputs,
    "alias_bytes": memory.aliases,
    "total_bytes": memory.total,
    "memory_bytes": target.memory_bytes,
    "fits": estimate.fits,
    "collectives": [collective._asdict() for collective in estimate.collectives],
    "without_estimate": estimate.without_estimate,
    "dearest": [
      dear._asdict() | {"source": [f"{place.file}:{place.line}" for place in dear.source]}
      for dear in estimate.dearest
    ],
    "largest_batch": None,  # unless it was looked for
    "compile_seconds": estimate.compile_seconds,
  }


def _per_chip(estimate: Estimate) -> float:
  return estimate.images / estimate.target.chips


def _device(estimate: Estimate) -> str:
  if estimate.target.devices_per_chip > 1:
    return "core"
  return "chip" if estimate.target.is_tpu else "card"


def _chips(estimate: Estimate) -> str:
  target = estimate.target
  number, name = target.chips, "chip" if target.is_tpu else "card"
  cores = f" of {target.devices_per_chip} cores" if target.devices_per_chip > 1 else ""
  return f"{number} {name}{'s' if number > 1 else ''}{cores}"


def _collectives(estimate: Estimate) -> str:
  kinds = [
    f"{kind.count} {kind.kind}, {kind.bytes / 1e6:.3g} MB, of which "
    + ", ".join(f"{dtype} {size / 1e6:.3g}" for dtype, size in kind.bytes_by_dtype.items())
    for kind in estimate.collectives
  ]
  return "; ".join(kinds) or "none"


def _time(estimate: Estimate) -> list[tuple[str, str]]:
  if not estimate.target.is_tpu:
    return [
      ("kernels", f"{estimate.kernels}"),
      (
        "traffic",
        f"{estimate.traffic_bytes / 1e9:.1f} GB, {estimate.traffic_milliseconds:.2f} ms at "
        f"{estimate.target.chip.memory_bandwidth / 1e9:,.0f} GB/s; no step is quicker. Without a "
        "card there is no time: the compiler chooses kernels by running them",
      ),
    ]
  if estimate.cycles is None:
    return [("estimated time", "none: the compiler was told to search little")]
  cycles = f"{estimate.cycles / 1e6:.2f} M cycles"
  if estimate.milliseconds is None:
    return [("estimated time", f"{cycles}; this chip's clock is not published")]
  share = f"{100 * estimate.peak_share:.1f} % of {estimate.target.chip.peak_flops / 1e12:g} TFLOP/s"
  clock = f"{estimate.target.chip.clock_hz / 1e9:g} GHz"
  left_out = ", ".join(f"{count} {name}" for name, count in estimate.without_estimate.items())
  return [
    ("estimated time", f"{estimate.milliseconds:.2f} ms, {cycles} at {clock}: {share}"),
    ("not in the estimate", left_out or "nothing"),
  ]


def _dearest(estimate: Estimate) -> str:
  unit, scale = ("M cycles", 1e6) if estimate.target.is_tpu else ("GB", 1e9)
  rows = [
    (f"{dear.cost / scale:.3f}", f"{100 * dear.share:.1f}", _short(dear), _sources(dear))
    for dear in estimate.dearest
  ]
  rows = [(unit, "%", "instruction", "lines"), *rows]
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  return "\n".join(
    f"{cost:>{widths[0]}} {share:>{widths[1]}}  {what:<{widths[2]}}  {lines}"
    for cost, share, what, lines in rows
  )


def _short(dear: Dear) -> str:
  backward = "backward " if "transpose(jvp" in dear.operation else ""
  result = ", ".join(dear.results[:_SHOWN_RESULTS])
  more = ", …" if len(dear.results) > _SHOWN_RESULTS else ""
  return f"{backward}{dear.operation.rpartition('/')[2] or dear.name} → {result}{more}"


def _sources(dear: Dear) -> str:
  return " < ".join(f"{place.file}:{place.line}" for place in dear.source[:_SHOWN_SOURCES])
