"""`~` in every path that a user gives."""

import ast
from pathlib import Path

import pytest

from magnifier_jax.files.user_path import PathError, user_path
from magnifier_jax.interop.torchvision_weights import cache_directory


def test_a_home(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setenv("HOME", "/homes/me")
  assert user_path("~/run") == Path("/homes/me/run")
  assert user_path("runs/~") == Path("runs/~")


def test_a_home_that_nobody_knows():
  with pytest.raises(PathError, match="~nobody-of-this-name/run: no home is known"):
    user_path("~nobody-of-this-name/run")


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setenv("HOME", "/homes/me")
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  assert cache_directory() == Path("/homes/me/.cache/magnifier_jax")
  monkeypatch.setenv("XDG_CACHE_HOME", "~/elsewhere")
  assert cache_directory() == Path("/homes/me/elsewhere/magnifier_jax")


PATH_OPTIONS = {"model", "workdir", "folder", "from", "to", "output", "page", "write", "workdirs"}
NO_PATHS = {("label_parts", "output")}  # the name of an output of the network


@pytest.mark.parametrize("tool", ["ablate", "check_data", "compare", "convert", "label_parts"])
def test_every_path_of_a_tool_is_a_users(repository: Path, tool: str):
  """An option that is a path by its name has `user_path` for its type."""
  tree = ast.parse((repository / "magnifier_jax" / "tools" / f"{tool}.py").read_text())
  for call in ast.walk(tree):
    if not isinstance(call, ast.Call) or not call.args:
      continue
    is_option = getattr(call.func, "attr", getattr(call.func, "id", "")) in ("add", "add_argument")
    name = call.args[0].value.lstrip("-") if is_option and hasattr(call.args[0], "value") else ""
    if name in PATH_OPTIONS and (tool, name) not in NO_PATHS:
      types = [ast.unparse(k.value) for k in call.keywords if k.arg == "type" or k.arg is None]
      assert types in (["user_path"], ["path"]), f"{tool}: --{name}"
