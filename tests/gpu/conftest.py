"""Every test in this folder runs on the emulator, most of them under its checker; and, with -m gpu, on a real device.

    python -m pytest tests/gpu                  needs a C++ compiler
    python -m pytest tests/gpu -m gpu           needs CuPy and a GPU
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minigen.autograd import backend
from minigen.emulator import NoCompiler, find_compiler


@pytest.fixture(scope="module", autouse=True, params=["emulator", pytest.param("device", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """What "cuda" means in the tests of a module."""
    if request.param == "device":
        problem = backend.cuda_problem()
        if problem is not None:
            pytest.skip(problem)
        yield request.param
        return
    try:
        find_compiler()
    except NoCompiler as error:
        pytest.skip(str(error))
    with backend.emulate():
        yield request.param
