"""The checker finds every mistake in bugs.cu, with its kind and line, and none in the fixed versions. Start at `test_found`.

    python tests/emulator/test_bugs.py          how many a plain run shows, three schedules, and the checker
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from minigen.emulator import SCHEDULES, KernelError, Program, compiler, running

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, compiler.COMPILERS)), reason="no C++ compiler to run CUDA kernels with: install g++"
)

TEXT = Path(__file__).with_name("bugs.cu").read_text(encoding="utf-8")
LINES = TEXT.splitlines()
NAMES = re.findall(r"^KERNEL (\w+)\(", TEXT, re.MULTILINE)
N, BLOCKS, BLOCK = 200, 4, 64
ROOM = {"swapped_axes": 10, "wrong_row_length": 4}  # blocks, where not the usual number


def marked(name: str) -> tuple[int, list[str]]:
    """The line of a kernel's mistake, counted from 1, and of which kinds it may be found to be."""
    start = next(i for i, line in enumerate(LINES) if line.startswith(f"KERNEL {name}("))
    for i in range(start, len(LINES)):
        found = re.search(r"// BUG ([a-z ]+):", LINES[i])
        if found:
            return i + 1, found[1].split()
    raise AssertionError(f"{name} has no line with BUG")


def run(name: str, fixed: bool, schedule: str, check: bool = True) -> np.ndarray:
    program = Program(TEXT, ("-DFIXED",) if fixed else ())
    shared = (4 * BLOCK if fixed else BLOCK) if name == "dynamic_too_small" else 0
    memory = np.full(20 * N, 7, np.float32)  # what lies around the arrays: without the checker nobody stops at their ends
    x, out = memory[5 * N : 6 * N], memory[10 * N : 11 * N]
    x[:], out[:] = np.linspace(0, 1, N), 0
    with running(check=check, schedule=schedule):
        program.launch(name, ROOM.get(name, BLOCKS), BLOCK, (np.int32(N), x, out), shared)
    return np.concatenate([x, out])


def test_there_are_enough() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 25
    assert TEXT.count("// BUG") == len(NAMES)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_found(name: str, schedule: str) -> None:
    line, kinds = marked(name)
    with pytest.raises(KernelError) as error:
        run(name, False, schedule)
    message = str(error.value)
    assert error.value.kind in kinds, message
    assert f"kernel.cu:{line}" in message, message
    assert message.startswith(f"kernel {name}, ")


@pytest.mark.parametrize("name", NAMES)
def test_no_alarm_when_fixed(name: str) -> None:
    """And the same numbers in every schedule."""
    results = [run(name, True, schedule) for schedule in SCHEDULES]
    if name not in ("sum_of_all_blocks",):  # adds in the order of the blocks, as atomics do
        assert all(np.array_equal(r, results[0]) for r in results)


def noticed(name: str, schedule: str, check: bool) -> bool:
    """Whether a run of the mistake ends in an error, with other numbers than the fixed kernel, or with the process."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(not np.array_equal(run(name, False, schedule, check), run(name, True, "forward")))
        except KernelError:
            os._exit(1)
    return os.waitpid(child, 0)[1] != 0


if __name__ == "__main__":
    plain = {name: [noticed(name, schedule, check=False) for schedule in SCHEDULES] for name in NAMES}
    checked = [noticed(name, "forward", check=True) for name in NAMES]
    print(f"{len(NAMES)} mistakes: {sum(first for first, *_ in plain.values())} show in a plain run, "
          f"{sum(map(any, plain.values()))} in one of three schedules, {sum(checked)} under the checker")
