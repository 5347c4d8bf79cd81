"""Which fields of the config the code reads: an attribute counts where its owner is a config."""

import ast
import collections
import dataclasses
import typing
from collections.abc import Iterable, Mapping
from types import ModuleType

Field = tuple[str, str]  # class and name
Types = dict[str, str]  # name of a variable → its config class
Attributes = dict[str, set[str]]  # `CLASS.NAME`, and `NAME` → what config class it may hold

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def fields_of(module: ModuleType) -> dict[Field, str | None]:
  """Returns the fields of a module's dataclasses, and the config class that each holds, if any."""
  classes = [kind for kind in vars(module).values() if dataclasses.is_dataclass(kind)]
  names = {kind.__name__ for kind in classes}
  found = {}
  for kind in classes:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
      held = getattr(hints[field.name], "__name__", None)
      found[kind.__name__, field.name] = held if held in names else None
  return found


def fields_read(trees: Iterable[ast.Module], fields: Mapping[Field, str | None]) -> set[Field]:
  """Returns the fields that are read from something that is annotated, or made, as a config.

  Args:
    trees: all the code; an attribute that one module declares is known in the others.
    fields: of `fields_of`.
  """
  trees = list(trees)
  reader = _Reader(fields)
  # `self.data = config.data` may need to know what a later line or module declares.
  for _ in range(3):
    reader.read.clear()
    for tree in trees:
      reader.visit(tree, {}, None)
  return reader.read


class _Reader:
  """Follows configs through functions, and remembers which attributes hold one."""

  def __init__(self, fields: Mapping[Field, str | None]):
    self._fields = fields
    self._classes = {owner for owner, _ in fields}
    self._attributes: Attributes = collections.defaultdict(set)
    self.read: set[Field] = set()

  def visit(self, node: ast.AST, known: Types, inside: str | None) -> None:
    """Visits a node with the variables known around it, inside a class or none."""
    if isinstance(node, ast.ClassDef):
      known, inside = dict(known), node.name
      self._declare(node)
    elif isinstance(node, _FUNCTIONS):
      known = self._with_arguments(node.args, known)
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
      read = self._kind(node.value, known, inside), node.attr
      if read in self._fields:
        self.read.add(read)
    for child in ast.iter_child_nodes(node):
      self.visit(child, known, inside)
    if isinstance(node, ast.Assign):
      for target in node.targets:
        self._assign(target, node.value, known, inside)

  def _declare(self, node: ast.ClassDef) -> None:
    """Remembers what a class declares, such as a NamedTuple's `config: Config`."""
    for statement in node.body:
      if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        kind = _annotated(statement.annotation, self._classes)
        if kind:
          self._attributes[statement.target.id].add(kind)

  def _with_arguments(self, arguments: ast.arguments, known: Types) -> Types:
    known = dict(known)
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
      known.pop(argument.arg, None)
      kind = _annotated(argument.annotation, self._classes)
      if kind:
        known[argument.arg] = kind
    return known

  def _assign(self, target: ast.expr, value: ast.expr, known: Types, inside: str | None) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
      for one, its_value in zip(target.elts, value.elts):
        self._assign(one, its_value, known, inside)
      return
    kind = self._kind(value, known, inside)
    if kind and isinstance(target, ast.Name):
      known[target.id] = kind
    elif kind and isinstance(target, ast.Attribute):
      self._attributes[f"{inside}.{target.attr}"].add(kind)
      self._attributes[target.attr].add(kind)

  def _kind(self, node: ast.expr, known: Types, inside: str | None) -> str | None:
    """Returns the config class of an expression's value; None where it is another or unsure."""
    if isinstance(node, ast.Name):
      return known.get(node.id)
    if isinstance(node, ast.Attribute):
      owner = self._kind(node.value, known, inside)
      if owner:
        return self._fields.get((owner, node.attr))
      own = self._attributes.get(f"{inside}.{node.attr}", set())
      kinds = own or self._attributes.get(node.attr, set())
      return next(iter(kinds)) if len(kinds) == 1 else None
    if isinstance(node, ast.Call):
      return _annotated(node.func, self._classes)  # `Config.from_config_dict(…)`
    return None


def _annotated(annotation: ast.expr | None, classes: set[str]) -> str | None:
  """Returns the config class in `Config`, `config_lib.Config`, `Config | None` or "Config"."""
  for node in ast.walk(annotation) if annotation else ():
    name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "value", None)
    if isinstance(name, str) and name in classes:
      return name
  return None
