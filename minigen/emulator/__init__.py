"""A GPU for those who have none: runs the very text of the CUDA kernels on a CPU, and looks at what they do.

    Program, running        kernels as they are, on NumPy arrays, with a checker for races and bounds (program.py)
    cupy                    as much of CuPy as minigen uses, on NumPy's memory, as strict as CuPy (cupy.py)
    KernelError             what is wrong with a kernel or its launch, with the line of its text (report.py)

How it works: device.h teaches a C++ compiler CUDA's words, runtime.cpp runs the threads of a block as fibers, checker.cpp
looks at every access to memory. What it cannot show is in docs/gpu.md.
"""

from .compiler import CompileError, NoCompiler, find_compiler
from .program import SCHEDULES, Mode, Program, running
from .report import KernelError, Traffic

__all__ = ["SCHEDULES", "CompileError", "KernelError", "Mode", "NoCompiler", "Program", "Traffic", "find_compiler", "running"]
