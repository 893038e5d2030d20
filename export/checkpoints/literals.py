"""Configurations written as Python (mmengine's and mmcv's), read without running them.

A configuration is a list of assignments of literals: numbers, texts, tuples, lists, dictionaries written `{…}` or
`dict(…)`, names assigned before, arithmetic, and lists `[… for name in …]`. Nothing else is understood, and nothing is ever
called.
"""

from __future__ import annotations

import ast
import copy
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dovit.runtime.errors import DovitError, UsageError, first_line
from dovit.runtime.files import parse_json, read_text, real_path

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
LARGEST = 1 << 16  # elements of a repeated sequence
MOST = 1 << 20  # values in all, copies counted


class _Yaml(yaml.SafeLoader):
    """YAML as mmengine writes it: safe, and with tuples."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_Yaml.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


class _Unreadable(ValueError):
    """What stands in a configuration and is no literal, with its line."""


def parse_config(text: str, where: str) -> dict[str, Any]:
    """The variables of a configuration `text`, as mmengine's `Config.fromstring` finds them. DovitError names `where`."""
    if "{{" in text:
        raise DovitError(f"{where}: has variables in {{{{…}}}}, which mmengine fills in: give it as `dump` writes it")
    try:
        return _Evaluator().variables(ast.parse(text))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise DovitError(f"{where}: no Python configuration ({first_line(error)})") from None
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError) as error:
        raise DovitError(
            f"{where}: cannot be read without running it ({first_line(error)}); give --config the file that "
            f"mmengine writes beside its checkpoints, or that `Config.dump` writes"
        ) from None


def read_config(file: Path) -> dict[str, Any]:
    """The configuration file `file`: Python with the files that its `_base_` names, JSON, or YAML. DovitError otherwise."""
    return _read_config(file, ())


def _read_config(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if real_path(file) in seen:
        raise DovitError(f"{file}: its _base_ leads back to itself")
    try:
        text = read_text(file)
    except FileNotFoundError:
        raise DovitError(f"{file}: no such configuration") from None
    except (OSError, ValueError) as error:
        raise DovitError(
            f"{file}: cannot be read as a configuration ({error}); --config takes .py, .json, .yml"
        ) from None
    structured = file.suffix in (".json", ".yml", ".yaml")
    content = _structured(file, text) if structured else parse_config(text, str(file))
    bases = content.pop("_base_", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str) or "::" in base:
            raise DovitError(
                f"{file}: its _base_ {base!r} is in another package: give the file that `Config.dump` writes"
            )
        added = _read_config(file.parent / base, (*seen, real_path(file)))
        twice = sorted(merged.keys() & added.keys())
        if twice:
            raise DovitError(f"{file}: two of its _base_ files set {twice[0]}")
        merged |= added
    return _merged(content, merged)


def _structured(file: Path, text: str) -> dict[str, Any]:
    try:
        content = parse_json(text) if file.suffix == ".json" else yaml.load(text, _Yaml)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise DovitError(f"{file}: damaged ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise DovitError(f"{file}: holds a {type(content).__name__}, not a configuration")
    return content


def _merged(changes: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`: dictionaries are merged, unless they say `_delete_`; everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict):
            value = dict(value)
            replaces = bool(value.pop("_delete_", False))
            below = result.get(key)
            result[key] = _merged(value, below if isinstance(below, dict) and not replaces else {})
        else:
            result[key] = value
    return result


def parse_change(text: str) -> tuple[str, Any]:
    """`key=value`, as `--set` takes it: the value is a literal, `true` or `false`, or a text where it is none of these.
    Raises UsageError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text}: give KEY=VALUE, as model.backbone.num_heads=16")
    try:
        return key.strip(), _Evaluator().value(ast.parse(value.strip(), mode="eval").body, {})
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, ArithmeticError, RecursionError, MemoryError):
        spelled = {"true": True, "false": False}  # as mmengine's --cfg-options, JSON and YAML spell them
        return key.strip(), spelled.get(value.strip().lower(), value.strip())


def set_value(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at the dotted `key` of nested dictionaries and lists, making dictionaries on the way. UsageError where a
    part of the key leads nowhere."""
    *parents, last = key.split(".")
    at: Any = tree
    for number, part in enumerate([*parents, last]):
        final = number == len(parents)
        if isinstance(at, list | tuple):
            if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(at) or not isinstance(at, list):
                raise UsageError(f"--set {key}: {part} is no place in a list of {len(at)}")
            if final:
                at[int(part)] = value
            else:
                at = at[int(part)]
        elif isinstance(at, dict):
            if final:
                at[part] = value
            else:
                if at.get(part) is None:
                    at[part] = {}
                at = at[part]
        else:
            raise UsageError(f"--set {key}: {'.'.join(key.split('.')[:number])} holds a value and no settings")


class _Evaluator:
    """Values of literals, of which it makes no more than a configuration holds: a few lines could ask for gigabytes."""

    def __init__(self) -> None:
        self._left = MOST

    def variables(self, module: ast.Module) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for statement in module.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = self.value(value, names)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    names[name] = self.value(value, names)
                case ast.Expr(value=ast.Constant()):  # a docstring
                    pass
                case _:
                    raise _Unreadable(f"line {statement.lineno}: not an assignment of a value")
        return {name: value for name, value in names.items() if not name.startswith("__")}

    def value(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self._spend(1, node)
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in names:
                self._spend(_size(names[name], self._left), node)
                return copy.deepcopy(names[name])
            case ast.Name(id=name):
                raise _Unreadable(f"line {node.lineno}: {name} is not assigned before")
            case ast.List(elts=parts):
                return [self.value(part, names) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple(self.value(part, names) for part in parts)
            case ast.Set(elts=parts):
                return {self.value(part, names) for part in parts}
            case ast.Dict(keys=keys, values=values):
                return self._dictionary(zip(keys, values, strict=True), names)
            case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords) if len(args) <= 1:
                first = dict(self.value(args[0], names)) if args else {}
                pairs = [(None if k.arg is None else ast.Constant(k.arg), k.value) for k in keywords]
                return first | self._dictionary(pairs, names)
            case ast.Call(func=ast.Name(id="list" | "tuple" as kind), args=[only], keywords=[]):
                parts_of = self.value(only, names)
                return list(parts_of) if kind == "list" else tuple(parts_of)
            case ast.Call(
                func=ast.Name(id="float"), args=[ast.Constant(value=str() | int() | float() as value)], keywords=[]
            ):
                return float(value)
            case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name), iter=over, ifs=[])]):
                return [self.value(element, {**names, name: each}) for each in self.value(over, names)]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand, names)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                made = self._operation(op, self.value(left, names), self.value(right, names), node.lineno)
                self._spend(len(made) if isinstance(made, list | tuple) else 1, node)
                return made
            case ast.Subscript(value=whole, slice=ast.Constant() | ast.UnaryOp() as index):
                return self.value(whole, names)[self.value(index, names)]
            case _:
                raise _Unreadable(f"line {node.lineno}: {ast.unparse(node)[:60]} is no literal")

    def _operation(self, op: ast.operator, left: Any, right: Any, line: int) -> Any:
        sizes = [len(each) for each in (left, right) if isinstance(each, list | tuple | str)]
        if len(sizes) == 2 and sum(sizes) > LARGEST:
            raise _Unreadable(f"line {line}: a sequence of more than {LARGEST} elements")
        if any(isinstance(number, int) and abs(number) >= 1 << 64 for number in (left, right)):
            raise _Unreadable(f"line {line}: a number of more than 64 bits")
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, list | tuple | str) and isinstance(times, int) and len(sequence) * times > LARGEST:
                raise _Unreadable(f"line {line}: a sequence of more than {LARGEST} elements")
        return OPERATORS[type(op)](left, right)

    def _dictionary(self, pairs: Any, names: dict[str, Any]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, value in pairs:
            if key is None:  # **other
                result |= self.value(value, names)
            else:
                result[self.value(key, names)] = self.value(value, names)
        return result

    def _spend(self, count: int, node: ast.expr) -> None:
        self._left -= count
        if self._left < 0:
            raise _Unreadable(f"line {node.lineno}: more than {MOST} values")


def _size(value: Any, most: int) -> int:
    """How many values are in it; counting ends above `most`."""
    count, stack = 0, [value]
    while stack and count <= most:
        each = stack.pop()
        count += 1
        if isinstance(each, dict):
            stack += each.values()
        elif isinstance(each, list | tuple | set):
            stack += each
    return count
