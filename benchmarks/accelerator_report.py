"""The Markdown of `benchmarks.accelerator`, and the line that it prints after each part."""

from collections.abc import Iterator, Sequence
from typing import Any

_STATES = {
  "cut off": "cut off at its time limit",
  "no time": "not started: too little time was left",
  "failed": "failed",
}


def outcome_line(part: dict[str, Any]) -> str:
  """Returns how a part ended, with its most important number."""
  line = f"{part['name']}: {_STATES.get(part['state'], 'done')}"
  if part["state"] != "no time":
    line += f", {part['seconds']:.0f} s"
  found, said = part["found"], ""
  if part["state"] == "failed":
    said = part["error"].splitlines()[-1] if part["error"] else ""
  elif part["kind"] == "parity":
    said = ", ".join(f"{name} {_agreement(group)}" for name, group in _groups(found))
  elif "ratio" in found:
    said = f"{1e3 * found['jax']['seconds']:.1f} ms, {found['ratio']:.2f} × PyTorch"
  elif "jax" in found:
    said = f"{1e3 * found['jax']['seconds']:.1f} ms"
  return f"{line}; {said}" if said else line


def as_markdown(content: dict[str, Any]) -> str:
  """Returns all results as a page."""
  parts = content["parts"]
  by_kind = {kind: [p for p in parts if p["kind"] == kind] for kind in _SECTIONS}
  lines = ["# An accelerator, measured", "", f"{content['started']}", ""]
  lines += [f"- {name}: {value}" for name, value in content["machine"].items()]
  for kind, section in _SECTIONS.items():
    if by_kind[kind]:
      lines += ["", *section(by_kind[kind])]
  if unfinished := [part for part in parts if part["state"] != "done"]:
    lines += ["", "## Not finished", ""]
    lines += [f"- {outcome_line(part)}" for part in unfinished]
  return "\n".join(lines) + "\n"


def _groups(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
  return ((name, value) for name, value in found.items() if isinstance(value, dict))


def _agreement(group: dict[str, Any]) -> str:
  return "agree" if group["agrees"] else "DO NOT agree"


def _parity(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
  yield "## Agreement with the authors' numbers"
  for part in parts:
    found = part["found"]
    yield ""
    yield f"{found.get('dtype')}, {found.get('fixture')}; relative deviations."
    yield ""
    yield from _table(
      ("numbers of", "how many", "", "worst", "deviation", "allowed"),
      [
        (
          name,
          group["numbers"],
          _agreement(group),
          group["name"],
          f"{group['found']:.1e}",
          f"{group['allowed']:.0e}",
        )
        for name, group in _groups(found)
      ],
    )


def _comparisons(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
  yield "## Beside the PyTorch twin"
  yield ""
  yield "Medians. Rate: of the faster side's large matrix product in the same dtype; float32 is"
  yield "TF32 on NVIDIA cards, on both sides."
  yield ""
  yield from _table(
    (
      "task, dtype, batch",
      "ms",
      "images/s",
      "% of rate",
      "peak MB",
      "twin",
      "ms",
      "% of rate",
      "peak MB",
      "× twin (in rounds)",
    ),
    [_comparison_row(part) for part in parts if part["found"]],
  )
  rates = {found["work"]["dtype"]: _rate(found) for found in _measured(parts) if "jax" in found}
  yield ""
  yield "Matrix products: " + (
    ", ".join(f"{dtype} {rate / 1e12:.3g} TFLOP/s" for dtype, rate in rates.items()) or "none yet"
  )
  yield ""
  yield "Time to compile, s:"
  yield ""
  yield from _compilations(parts)


def _measured(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  return [part["found"] for part in parts if part["found"]]


def _rate(found: dict[str, Any]) -> float:
  return max(found[side]["matrix_product_rate"] for side in ("jax", "pytorch") if side in found)


def _comparison_row(part: dict[str, Any]) -> tuple[Any, ...]:
  found, name = part["found"], part["name"]
  if "jax" not in found:  # cut off; what has compiled has a first time
    first = [found.get(f"first_{side}_seconds") for side in ("jax", "pytorch")]
    ours, theirs = (s and f"{1e3 * s:.1f} (first)" for s in first)
    return (name, ours, None, None, None, None, theirs, None, None, None)
  rate = _rate(found)
  operations = found.get("operations") or found["compilation"]["operations"]

  def of_side(side: dict[str, Any]) -> tuple[str, str | None, str]:
    share = operations and f"{100 * operations / side['seconds'] / rate:.1f}"
    return f"{1e3 * side['seconds']:.1f}", share, f"{side['peaks']['whole']:.0f}"

  milliseconds, share, peak = of_side(found["jax"])
  ours = (name, milliseconds, f"{found['jax']['images_per_second']:.0f}", share, peak)
  if "pytorch" not in found:
    return (*ours, found["without_twin"], None, None, None, None)
  low, high = found["ratio_spread"]
  ratio = f"{found['ratio']:.2f} ({low:.2f}–{high:.2f})"
  return (*ours, found["variant"], *of_side(found["pytorch"]), ratio)


def _compilations(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
  yield from _table(
    ("program", "traced", "compiled", "from the cache"),
    [
      (
        part["name"],
        f"{made['trace_seconds']:.1f}",
        f"{made['compile_seconds']:.1f}",
        "yes" if made["from_cache"] else "no",
      )
      for part in parts
      if (made := part["found"].get("compilation"))
    ],
  )


def _profile(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
  yield "## The dearest kernels of a step"
  for part in parts:
    found = part["found"]
    yield ""
    yield from _compilations([part])
    if "kernels" not in found:
      continue
    yield ""
    yield f"{found['milliseconds']:.2f} ms of kernels in {found['launches']:.0f} launches a step."
    yield ""
    yield from _table(
      ("ms", "%", "calls", "kernel", "from"),
      [
        (
          f"{kernel['milliseconds']:.3f}",
          f"{100 * kernel['share']:.1f}",
          f"{kernel['calls']:g}",
          f"`{kernel['kernel'][:60]}`",
          f"`{kernel['operation'][-80:]}`",
        )
        for kernel in found["kernels"]
      ],
    )
    yield ""
    yield from _table(
      ("ms", "%", "calls", "kind"),
      [
        (
          f"{cost['milliseconds']:.3f}",
          f"{100 * cost['share']:.1f}",
          f"{cost['calls']:g}",
          cost["kind"],
        )
        for cost in found["by_kind"]
      ],
    )


def _memory(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
  yield "## Memory of a step"
  for part in parts:
    yield ""
    yield part["name"]
    yield ""
    yield from _table(
      ("", "temporaries GiB", "arguments GiB", "peak MB", "ms"),
      [
        (
          name,
          f"{group['temporaries_bytes'] / 2**30:.2f}",
          f"{group['arguments_bytes'] / 2**30:.2f}",
          f"{group['peaks']['whole']:.0f}",
          f"{1e3 * group['seconds']:.1f}",
        )
        for name, group in _groups(part["found"])
      ],
    )


def _variants(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
  yield "## Variants of the twin, alone"
  for part in parts:
    yield ""
    yield from _table(
      ("variant", "ms"),
      [
        (probe["variant"], f"{1e3 * probe['seconds']:.1f}" if probe["seconds"] else "failed")
        for probe in part["found"].get("probes", [])
      ],
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
  yield _row(titles)
  yield "|" + "---|" * len(titles)
  yield from map(_row, rows)


def _row(cells: Sequence[Any]) -> str:
  texts = ("" if cell is None else str(cell).replace("|", "\\|") for cell in cells)
  return f"| {' | '.join(texts)} |"


_SECTIONS = {
  "parity": _parity,
  "comparison": _comparisons,
  "profile": _profile,
  "memory": _memory,
  "variants": _variants,
}
