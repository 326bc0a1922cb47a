"""YAML descriptions: reading them safely, finding them in the libraries, and errors that name file and key.

Reading follows YAML 1.2's core schema where 1.1 surprises people: `1e9` is a number, `no` and `on` are text, dates are
text. Duplicate keys, alias bombs, deep nesting, several documents and files over 10 MB are refused.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import yaml

from einsum.errors import EinsightError, SpecError, join_key, nearest
from einsum.files import reason

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MAX_BYTES = 10_000_000
MAX_NODES = 1_000_000
MAX_DEPTH = 64
TOO_DEEP = f"the file is nested more than {MAX_DEPTH} levels deep"

LIBRARIES = {
    "cascade": "einsum",
    "architecture": "architectures",
    "mapping": "mappings",
    "workload": "workloads",
}
"""kind of description -> the package whose `library` folder holds the named ones."""


# A safe loader (the compiled one where it exists) of its own, with YAML 1.2 scalars and without duplicate keys
_Loader: Any = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {"yaml_implicit_resolvers": {}})


def _add_scalar(tag: str, pattern: str, first: str) -> None:
    """Read plain scalars of this pattern as `tag`; `first` holds the characters that they may begin with."""
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first) or [""])


_add_scalar("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_add_scalar("null", "~|null|Null|NULL", "~nN")
_add_scalar("null", "", "")
_add_scalar("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+", "-+0123456789")
_add_scalar(
    "float",
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+.0123456789",
)
_add_scalar("merge", "<<", "<")


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    text = str(node.value).replace("_", "")
    try:
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    except ValueError:  # Python refuses absurdly long numbers
        raise yaml.constructor.ConstructorError(None, None, "the number is too long", node.start_mark) from None


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' occurs twice", key_node.start_mark)
        seen.add(key)
    mapping: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return mapping


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


@dataclass(frozen=True)
class SpecFile:
    """A YAML description and where it came from, so that every error can name its file and key."""

    path: Path
    data: dict[str, Any]

    @staticmethod
    def load(path: str | Path) -> SpecFile:
        """Read one YAML file whose top level is a mapping; SpecError says what is wrong and where."""
        path = Path(path)
        return SpecFile(path, parse_yaml(_read(path), str(path)))

    def error(self, key: str | Iterable[str | int] | None, message: str) -> SpecError:
        """An error at a key path, given as text or as its parts."""
        path = key if key is None or isinstance(key, str) else join_key(*key)
        return SpecError(message, file=str(self.path), key=path)

    def located(self, error: EinsightError, key: str | None = None) -> EinsightError:
        """The same error with this file, and `key` before its key path."""
        return error.located(file=str(self.path), key=key)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in one YAML file, as `SpecFile.load(path).data`."""
    return SpecFile.load(path).data


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is a folder, expected a YAML file" if path.is_dir() else "there is no such file"
            raise SpecError(what, file=str(path))
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot be read: {reason(error)}", file=str(path)) from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"the file is larger than {MAX_BYTES // 10**6} MB", file=str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError("the file is not UTF-8 text", file=str(path)) from None


def parse_yaml(text: str, file: str | None = None) -> dict[str, Any]:
    """The mapping in YAML text; `file` is named in errors."""
    try:
        _refuse_deep_nesting(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _refuse_bombs(node)
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise SpecError(_yaml_message(error), file=file) from None
    except SpecError as error:
        raise error.located(file=file) from None
    if not isinstance(data, dict):
        found = {type(None): "nothing", list: "a list"}.get(type(data), f"{data!r:.60}")
        raise SpecError(f"expected a mapping of keys to values, found {found}", file=file)
    odd = next((key for key in data if not isinstance(key, str)), None)
    if odd is not None:
        raise SpecError(f"the key {odd!r} is not text", file=file)
    return data


def _refuse_deep_nesting(text: str) -> None:
    """Composing is recursive, so the depth is checked on the stream of events before."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise SpecError(TOO_DEEP)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _refuse_bombs(root: yaml.Node | None) -> None:
    """Count the nodes that remain when all aliases are written out; a small file can stand for billions."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, open_nodes: frozenset[int]) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in open_nodes:
            raise SpecError(f"line {node.start_mark.line + 1}: an alias refers to the value that contains it")
        if id(node) not in sizes:
            inside = open_nodes | {id(node)}
            children = [c for pair in node.value for c in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + sum(size(child, inside) for child in children)
        return sizes[id(node)]

    if root is not None and size(root, frozenset()) > MAX_NODES:
        raise SpecError(f"the file expands to more than {MAX_NODES} values; are aliases nested in aliases?")


def _yaml_message(error: yaml.YAMLError) -> str:
    if "maximum nesting depth" in str(error):  # libyaml looks ahead, and gives up before the events are counted
        return TOO_DEEP
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    problem = " ".join(f"{getattr(error, 'context', None) or ''} {problem}".split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else f"not valid YAML: {problem}"


def library_folder(kind: str) -> Path:
    """The folder of the named descriptions of a kind, in a source tree or in an installed wheel."""
    if kind not in LIBRARIES:
        raise SpecError(f"unknown kind of description '{kind}'{nearest(kind, LIBRARIES)}")
    package = LIBRARIES[kind]
    found = importlib.util.find_spec(package)
    for location in (found.submodule_search_locations or []) if found else []:
        folder = Path(location) / "library"
        if folder.is_dir():
            return folder
    return Path(__file__).resolve().parent.parent / package / "library"


def list_library(kind: str) -> tuple[str, ...]:
    """The names in the library of a kind (cascade, architecture, mapping, workload), sorted."""
    return tuple(sorted(path.stem for path in library_folder(kind).glob("*.yaml")))


def beside(file: str | Path | None, name: str) -> str:
    """What a description in `file` names: a path starts in that file's folder if it is there, else as it stands."""
    path = Path(file).parent / name if file is not None and _is_path(name) else Path(name)
    return str(path) if path.is_file() else name


def all_beside(file: str | Path, document: Any) -> Any:
    """A document in `file` that names cascades, architectures, mappings or workloads, alone or in lists: with the paths
    of those files that lie beside it."""

    def found(value: Any) -> Any:
        if isinstance(value, list):
            return [found(each) for each in value]
        return beside(file, value) if isinstance(value, str) else value

    if not isinstance(document, dict):
        return document
    kinds = ("cascade", "architecture", "mapping", "workload")
    return {name: found(value) if name in kinds else value for name, value in document.items()}


def _is_path(text: str) -> bool:
    return Path(text).suffix in (".yaml", ".yml") or "/" in text or "\\" in text


def find_spec(kind: str, name_or_path: str | Path) -> Path:
    """The file of a library name or of a path to a YAML file; SpecError with the nearest name when there is none."""
    text = str(name_or_path)
    path = Path(text)
    looks_like_path = _is_path(text)
    names = list_library(kind)
    if not looks_like_path and text in names:
        return library_folder(kind) / f"{text}.yaml"
    if looks_like_path:
        if not path.is_file():
            hint = nearest(path.stem, names) if path.stem in names else ""
            raise SpecError(f"there is no such {kind} file{hint}", file=text)
        return path
    raise SpecError(f"unknown {kind} '{text[:100]}'{nearest(text[:100], names)}")


def pydantic_error(
    error: ValidationError, file: str | Path | None = None, model: type[BaseModel] | None = None, key: str | None = None
) -> SpecError:
    """One sentence for a pydantic ValidationError: the key path, what was found, what was expected.

    model  the class that was validated, to find the nearest field name for an unknown field
    key    path of the validated part inside the file
    """
    problems = error.errors()
    # A mistyped field shows as an unknown one and a missing one; the unknown one says what to change.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith(("function-", "is-")))]
    original = first.get("ctx", {}).get("error")
    inner_key = original.key if isinstance(original, EinsightError) else None
    if first["type"] == "extra_forbidden" and location:
        fields = _fields_at(model, location[:-1]) if model else ()
        hint = nearest(str(location[-1]), fields) if fields else ""
        message, location = f"unknown field '{location[-1]}'{hint}", location[:-1]
    elif first["type"] == "union_tag_invalid":
        found, known = first["ctx"]["tag"], re.findall(r"'([^']*)'", first["ctx"]["expected_tags"])
        message = f"unknown {first['ctx']['discriminator'].strip(chr(39))} '{found}'{nearest(found, known)}"
    elif first["type"] == "missing" and location:
        message, location = f"the field '{location[-1]}' is missing", location[:-1]
    elif isinstance(original, EinsightError):
        message = original.message
    else:
        message = _sentence(first["msg"], first["input"])
    column = original.column if isinstance(original, EinsightError) else None
    return SpecError(message, file=str(file) if file else None, key=join_key(key, *location, inner_key), column=column)


def _sentence(message: str, found: Any) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    expected = re.match(r"(?:Input|Value|.* type) should be (.*)", message)
    shown = repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"expected {expected[1]}, found {shown}" if expected else message[:1].lower() + message[1:]


def _fields_at(model: type[BaseModel], location: list[Any]) -> set[str]:
    """Names of the fields that may stand at a location, through lists, mappings and unions of models."""
    types: list[Any] = [model]
    for part in location:
        reached: list[Any] = []
        for kind in _models(types):
            if not isinstance(kind, tuple):
                field = kind.model_fields.get(part) if isinstance(part, str) else None
                reached += [field.annotation] if field else [kind]  # a union's tag names no field
            else:
                reached.append(kind[0])
        types = reached
    names: set[str] = set()
    for kind in _models(types):
        if not isinstance(kind, tuple):
            names.update(field.alias or name for name, field in kind.model_fields.items())
    return names


def _models(types: list[Any]) -> list[Any]:
    """The models in some annotations; an annotation of items becomes a tuple with the item's annotation."""
    from pydantic import BaseModel

    found: list[Any] = []
    for kind in types:
        origin, arguments = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append(kind)
        elif origin in (Union, UnionType):
            found += _models(list(arguments))
        elif origin is not None and hasattr(kind, "__metadata__"):
            found += _models([kind.__origin__])
        elif arguments:
            found.append((arguments[-1] if arguments[-1] is not Ellipsis else arguments[0],))
    return found
