"""One BLAS thread for the whole process, for what still uses BLAS: NumPy called directly, `np.linalg`, the references.

Why. A threaded BLAS splits a product differently for every number of threads, and the parts round differently. Measured
with NumPy's OpenBLAS 0.3.31: of 2,000 random products (float32 and float64; matrix by matrix with each operand plain or
transposed, matrix by vector, dot; sides 1 to 1024, some up to 50,000) one in eight changed its bits between 1, 2, 3, 4
and 8 threads, among them everyday ones such as (100, 784) @ (784, 50). On a single thread none did, wherever in memory
the operands lay. A threaded OpenBLAS also spins while it waits: on a busy two-core machine a product that takes .2 ms on
one thread took 3 to 80 times as long on two.

So importing this module tells every BLAS that is loaded to use one thread. That holds for the process: NumPy called
directly is single-threaded too, and stays reproducible, `np.linalg` included. Our own products (product.py) do not use
BLAS, since also on one thread it rounds a row differently in products of different numbers of rows.

macOS' Accelerate cannot be told its number of threads; there the promise does not hold for NumPy's own functions.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

threadpool_limits(limits=1, user_api="blas")
