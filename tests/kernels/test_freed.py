"""Freed memory stays with the process: what one step gives back, the next one has without the operating system."""

import subprocess
import sys

import pytest

from minigen.autograd.kernels import freed

STEPS = """
import resource
import numpy as np
{importing}

def step():
    arrays = [np.ones(3 << 20, np.uint8) for _ in range(20)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print((faults() - before) / 10)
"""


def faults_of_a_step(importing):
    code = STEPS.format(importing=importing)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return float(result.stdout)


@pytest.mark.skipif(not freed.keep_freed_memory(), reason="the C library cannot be told, or the environment has told it")
def test_a_process_with_compiled_kernels_takes_no_page_twice():
    """Sixty megabytes are 15,360 pages; without the setting most of them come anew with each step."""
    assert faults_of_a_step("") > 1000
    assert faults_of_a_step("from minigen.autograd.kernels import jit") < 100
