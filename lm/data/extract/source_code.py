"""Program code and documentation inside of code; parsed, never executed or imported."""

import ast
import inspect
import io
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from lm.data.extract.text import Extract, from_utf8, lines_of
from lm.data.fetch import read_members

# Folders of the standard library that hold tests, other people's packages, tables of characters or help pages.
_NOT_CODE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data", "__pycache__"}
# Commands of TeX such as \rightarrow and \frac in strings that should have been raw.
_ESCAPES = {"\r": "\\r", "\f": "\\f", "\a": "\\a", "\b": "\\b"}


def standard_library(_: Sequence[Path]) -> Iterator[Extract]:
    """Yield the modules of the running interpreter's standard library; a package is one work."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        # The build's own settings differ from machine to machine.
        if _NOT_CODE & set(relative.parts) or relative.name.startswith("_sysconfigdata"):
            continue
        content = path.read_bytes()
        encoding = tokenize.detect_encoding(io.BytesIO(content).readline)[0]
        name = ".".join(relative.with_suffix("").parts)
        yield Extract(name.split(".")[0], name, lines_of(content.decode(encoding)))


def docstrings(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the docstrings of packages sympy and mpmath with the names of what they describe; a module is a work."""
    for archive, package in zip(archives, ("sympy/", "mpmath/"), strict=True):
        for name, content in read_members(archive, [package], ".py"):
            if "/tests/" in name or "/benchmarks/" in name:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the code's own doubtful escapes
                tree = ast.parse(from_utf8(content, name), name)
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            yield from _described(tree, module, module)


def _described(node: ast.Module | ast.ClassDef | ast.FunctionDef, module: str, name: str) -> Iterator[Extract]:
    if described := ast.get_docstring(node, clean=False):
        for control, escape in _ESCAPES.items():
            described = described.replace(control, escape)
        yield Extract(module, name, f"{name}\n\n{inspect.cleandoc(described)}")
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _described(child, module, f"{name}.{child.name}")
