"""The versions of a kernel to read: NumPy, Numba and CUDA. Start at `show`.

What is shown is found in the files themselves: a function and whatever it uses of its own file, and for CUDA the kernels that
it launches, which a dry run tells.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..autograd import backend, kernels
from ..autograd.backend import KERNELS, Kernel
from .program import Launched, running

HEADS = {"numpy": "NumPy, the definition", "numba": "Numba", "cuda": "CUDA"}
COLUMN = 100  # characters for each version, where all three fit beside each other


def load_all() -> dict[str, Kernel]:
    """Every kernel of the project, by name."""
    for module in pkgutil.iter_modules(kernels.__path__, kernels.__name__ + "."):
        if module.ispkg:
            importlib.import_module(module.name)
    return dict(sorted(KERNELS.items()))


def rows() -> list[tuple[str, str, str, str]]:
    """For each kernel its name, its family, the CUDA kernels that it launches, and what it does."""
    found = []
    for name, kernel in load_all().items():
        launched = ", ".join(dict.fromkeys(launch.name for launch in launches(kernel))) or "matrix product of cuBLAS"
        doc = (kernel.implementation("numpy").__doc__ or "").strip().partition("\n")[0]
        found.append((name, kernel.family.rpartition(".")[2], launched, re.sub(r" {2,}", "  ", doc)))
    return found


def show(name: str, width: int = 0) -> str:
    """The three versions: beside each other if `width` characters are enough for that, else one below the other.

    Raises KeyError for an unknown kernel.
    """
    kernel = load_all()[name]
    versions = {}
    for which, head in HEADS.items():
        path = _file(kernel, which)
        text = python_source(path, name)
        if which == "cuda":
            names = dict.fromkeys(launch.name for launch in launches(kernel))
            text += "\n\n" + "\n\n".join(cuda_source(path.with_suffix(".cu"), names))
        versions[f"{head} ({path.parent.name}/{path.name})"] = text.strip()
    if width >= len(versions) * COLUMN:
        columns = [[head, "-" * len(head), *text.splitlines()] for head, text in versions.items()]
        lines = itertools.zip_longest(*columns, fillvalue="")
        return "\n".join("".join(cell[: COLUMN - 2].ljust(COLUMN) for cell in line).rstrip() for line in lines)
    return "\n\n".join(f"{head}\n{'-' * len(head)}\n{text}" for head, text in versions.items())


def _file(kernel: Kernel, which: str) -> Path:
    """Where a version is defined: the family's file for it, or the one that this imports it from."""
    module = f"{kernel.family}.{backend.BACKENDS.get(which, which)}"
    function = kernel.implementation(which)
    path = Path(str(sys.modules[module].__file__))
    if any(kernel.name in _defined(node) for node in ast.parse(path.read_text(encoding="utf-8")).body):
        return path
    return Path(str(sys.modules[function.__module__].__file__))


def python_source(path: Path, name: str) -> str:
    """The definition of `name` in a file, and after it those of the file's own names that it uses, and that they use."""
    text = path.read_text(encoding="utf-8")
    parts = {own: node for node in ast.parse(text).body for own in _defined(node)}
    wanted, seen = [name], []
    while wanted:
        own = wanted.pop(0)
        if own in parts and own not in seen and not (own.isupper() and own != name):
            seen.append(own)
            used = [n.id for n in ast.walk(parts[own]) if isinstance(n, ast.Name)]
            wanted += [other for other in used if not isinstance(parts.get(other), ast.Assign) or other.isupper()]
    lines = text.splitlines()
    return "\n\n".join("\n".join(lines[_first(parts[own]) - 1 : parts[own].end_lineno]) for own in seen)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _first(node: Any) -> int:
    """The first line of a definition, decorators included."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def cuda_source(path: Path, names: Collection[str]) -> list[str]:
    """The kernels of those names in a .cu file, and after each what it uses of the same file. Others are only named."""
    parts = list(_cuda_parts(path.read_text(encoding="utf-8")))
    own = {name for defined, _ in parts for name in defined}
    found = [f"// and {name}, of another family" for name in names if name not in own]
    wanted = [name for name in names if name in own]
    while wanted:
        name = wanted.pop(0)
        for defined, text in parts:
            if name in defined and text not in found:
                found.append(text)
                used = set(re.findall(r"\w+", text)) - defined
                wanted += [other for names, _ in parts for other in names if other in used]
    return found


def _cuda_parts(text: str) -> Iterator[tuple[set[str], str]]:
    """What stands at the left margin of a .cu file: the names that it defines, and its text with the comment above it."""
    for part in re.split(r"\n\n+(?=\S)", text.strip()):
        code = "\n".join(line for line in part.splitlines() if not line.startswith("//"))
        if re.match(r"[A-Z_]+\(\w+", code):  # kernels made by a macro, a line each
            yield from (({line.partition("(")[2].partition(",")[0]}, line) for line in code.splitlines())
        elif code:
            head = code.partition("{")[0]
            found = re.findall(r"#define (\w+)", code) + re.findall(r"\bstruct (\w+)", head)
            yield set(found or re.findall(r"(\w+)\(", head)[:1]), part


def launches(kernel: Kernel) -> list[Launched]:
    """What its CUDA version launches, for the last, largest of its card's cases. Nothing is run, and no compiler needed."""
    args, kwargs = typical_case(kernel)
    with backend.emulate(compile=False), running(dry=True) as mode:
        kernel.implementation("cuda")(*on_device(args), **kwargs)
    return mode.launches


def typical_case(kernel: Kernel) -> tuple[tuple, dict]:
    """The case of its card that moves the most bytes, in float32."""
    return max(kernel.card.cases(np.random.default_rng(7), np.float32), key=lambda case: kernel.card.bytes(*case[0], **case[1]))


def on_device(value: Any) -> Any:
    """Arrays, also inside tuples and lists, moved to the device."""
    if isinstance(value, tuple | list):
        return type(value)(map(on_device, value))
    return backend.move(value, "cuda") if isinstance(value, np.ndarray) else value
