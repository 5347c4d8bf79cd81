"""The list of a checkpoint's files with their sizes and hashes, by which damage is found.

Orbax does not notice a changed byte inside an array, and restores a checkpoint with a missing file
only to fail half-way; so files are compared with this list before anything is restored.
"""

import hashlib
import json
from pathlib import Path

MANIFEST = "manifest.json"

# Orbax completes these after the list is written: they must be there, whatever they say.
_STEP_METADATA = "_CHECKPOINT_METADATA"
_COMMIT_MARK = "commit_success.txt"


def write_manifest(folder: Path) -> None:
  """Lists the files of a checkpoint that is complete except for its final name."""
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  completed_later = [_STEP_METADATA]
  if any(path.name == _COMMIT_MARK for path in files):  # not every version of Orbax writes it
    completed_later.append(_COMMIT_MARK)
  listed = {
    name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    for path in files
    if (name := path.relative_to(folder).as_posix()) not in completed_later
  }
  manifest = {"files": listed, "completed_later": completed_later}
  (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def find_damage(folder: Path) -> str | None:
  """Compares a checkpoint with its list of files; extra files do not matter.

  Returns:
    What is wrong with the first damaged file; None when the checkpoint is whole.
  """
  try:
    if not any(folder.iterdir()):
      return "the folder is empty"
  except FileNotFoundError:
    return "the folder is gone"
  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    files, completed_later = manifest["files"].items(), manifest["completed_later"]
  except FileNotFoundError:
    return f"{MANIFEST} is missing"
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return f"{MANIFEST} is damaged"
  for name, expected in files:
    if damage := _file_damage(folder / name, expected):
      return f"{name} {damage}"
  for name in completed_later:
    if damage := _late_file_damage(folder / name):
      return f"{name} {damage}"
  return None


def _file_damage(path: Path, expected: dict[str, int | str]) -> str | None:
  if not path.is_file():
    return "is missing"
  size = path.stat().st_size
  if size != expected["bytes"]:
    return f"has {size} of {expected['bytes']} bytes"
  try:
    return None if _sha256(path) == expected["sha256"] else "has other contents than were written"
  except OSError as error:
    return f"cannot be read: {error.strerror}"


def _late_file_damage(path: Path) -> str | None:
  if not path.is_file():
    return "is missing"
  if path.stat().st_size == 0:
    return "is empty"
  if path.name == _STEP_METADATA:
    try:
      json.loads(path.read_bytes())
    except ValueError:
      return "is damaged"
  return None


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
