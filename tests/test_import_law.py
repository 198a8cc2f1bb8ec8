"""Who may import whom: the rooms of minigen and the doors between them. Start at LAW; read it from the bottom up.

A room is a module or a package. It may import itself and what LAW lists, and nothing else of minigen.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minigen

PACKAGE = Path(minigen.__file__).parent
MODELS = ("minigen.models", "minigen.nn", "minigen.optim", "minigen.random", "minigen.data", "minigen.autograd")

LAW = {
    "minigen.cli": ("minigen",),
    "minigen.emulator": ("minigen",),
    "minigen.training": (*MODELS, "minigen.evaluation", "minigen.plots"),  # its last act is to judge and to draw
    "minigen.truths": MODELS,
    "minigen.evaluation": MODELS,
    "minigen.plots": (),  # plain arrays in, a picture out
    "minigen.models": ("minigen.nn", "minigen.autograd", "minigen.random", "minigen.optim"),
    "minigen.data": ("minigen.random",),
    "minigen.optim": ("minigen.autograd",),
    "minigen.nn": ("minigen.autograd", "minigen.random"),
    "minigen.random": ("minigen.autograd",),
    "minigen.autograd": ("minigen.autograd",),  # the face of the engine; its rooms:
    "minigen.autograd.gradcheck": ("grad", "tape", "tensor", "backend", "cards"),
    "minigen.autograd.observe": ("draw", "grad", "tape"),
    "minigen.autograd.draw": ("tape", "tensor"),
    "minigen.autograd.cards": ("ops", "tape", "tensor", "backend"),
    "minigen.autograd.grad": ("tape", "tensor", "ops"),
    "minigen.autograd.ops": ("tape", "kernels", "backend"),
    "minigen.autograd.tensor": ("tape",),
    "minigen.autograd.tape": ("plan", "remedies"),
    "minigen.autograd.plan": (),  # the ground floor
    "minigen.autograd.remedies": (),
    "minigen.autograd.capture": ("backend", "dials", "kernels", "tape"),
    "minigen.autograd.kernels": ("backend", "dials"),
    "minigen.autograd.dials": (),
    "minigen.autograd.backend": (),  # finds kernels by name, when they are first called
}

HEAVY = {  # package -> the only files that may import it
    "cupy": ("autograd/backend.py",),
    "numba": ("autograd/kernels/jit.py",),  # kernels take jit and prange from there
    "matplotlib": ("plots.py",),
}
FOR_INTRINSICS = ("numba.extending", "numba.core", "numba.types")  # these any kernel may import


def room_of(module: str) -> str:
    """The innermost room that a module is in; the package itself for minigen/__init__.py."""
    rooms = [room for room in LAW if module == room or module.startswith(room + ".")]
    return max(rooms, key=len, default="minigen")


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every import in a file, also inside functions: (line, full name of the module)."""
    inside = ["minigen", *file.relative_to(PACKAGE).with_suffix("").parts][:-1]  # the package that the file is in
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = PACKAGE.parent / Path(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists() or base == "numba"
                yield node.lineno, f"{base}.{alias.name}" if is_module else base
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_import_law(file: Path) -> None:
    name = ".".join(["minigen", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    room = room_of(name)
    if room == "minigen":
        return  # minigen/__init__.py shows what the rooms hold
    allowed = [door if door.startswith("minigen") else f"minigen.autograd.{door}" for door in LAW[room]]
    for line, target in imports(file):
        if target.split(".")[0] != "minigen" or target == "minigen" or room_of(target) == room:
            continue
        assert any(target == door or target.startswith(door + ".") for door in allowed), (
            f"{file.relative_to(PACKAGE.parent)}:{line} imports {target}, but the room {room} may import only "
            f"{', '.join(allowed) or 'nothing of minigen'}. Move what you need down into one of those, or hand it in as an "
            "argument. The law keeps every room readable without the ones above it."
        )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_packages_have_one_door(file: Path) -> None:
    name = file.relative_to(PACKAGE).as_posix()
    for line, target in imports(file):
        doors = HEAVY.get(target.split(".")[0], (name,))
        intrinsics = name.startswith("autograd/kernels/") and target.startswith(FOR_INTRINSICS)
        assert name in doors or intrinsics, (
            f"minigen/{name}:{line} imports {target}; only minigen/{' and minigen/'.join(doors)} may. "
            "One door keeps the choice of device and compiler flags in one place; import what you need from there."
        )


def test_the_law_has_no_cycles() -> None:
    done: list[str] = []

    def visit(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, f"a cycle: {' -> '.join([*path, room])}"
        if room not in done:
            for door in LAW[room]:
                below = door if door.startswith("minigen") else f"minigen.autograd.{door}"
                if below in LAW and below != room:
                    visit(below, (*path, room))
            done.append(room)

    for room in LAW:
        visit(room, ())


def test_every_room_of_the_law_is_known() -> None:
    """A new package must say what it may import."""
    for path in [*PACKAGE.iterdir(), *(PACKAGE / "autograd").iterdir()]:
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__":
            name = ".".join(["minigen", *path.relative_to(PACKAGE).with_suffix("").parts])
            assert name in LAW, f"{name} is not in LAW (tests/test_import_law.py): add a line that says what it may import"


def test_import_minigen_is_light() -> None:
    code = "import sys, minigen; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    slow = {"matplotlib", "cupy", "sklearn", "numba", "scipy", "pooch", "tqdm", "torch"} & set(loaded)
    assert not slow, f"`import minigen` also imports {sorted(slow)}: import them in the function that needs them"
