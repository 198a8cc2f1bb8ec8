// Matrix products in tiles, for steps that are recorded as a graph, where cuBLAS cannot be called through CuPy; and triangular
// systems by substitution: one thread to a column of the solution, which no other thread reads.

#include "../common.cuh"

#define TILE 32  // rows and columns of a tile, and terms of the sums that are in shared memory at a time
#define OWN 4    // results of a thread: a column of them, 8 rows apart

// out (batch, rows, columns) = a (batch, rows, depth) b (batch, depth, columns), of which out lies in C order; the others as
// their steps say, in numbers: from matrix to matrix, row to row, column to column. Blocks of 32 x 8 threads; grid: tiles of
// columns, tiles of rows, matrices.
KERNEL matmul_kernel(
    int rows, int depth, int columns, int a_step, int a_row, int a_column, int b_step, int b_row, int b_column,
    const real* a, const real* b, real* out
) {
    __shared__ real left[TILE][TILE + 1], right[TILE][TILE + 1];  // + 1: columns fall into different banks
    int x = threadIdx.x, column = blockIdx.x * TILE + x, first_row = blockIdx.y * TILE;
    a += blockIdx.z * a_step;
    b += blockIdx.z * b_step;
    bool a_down = a_row < a_column, b_down = b_row < b_column;  // neighbours in memory are one above the other
    real sums[OWN] = {};
    for (int k = 0; k < depth; k += TILE) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int y = threadIdx.y + 8 * i;
            int line = a_down ? x : y, at = a_down ? y : x, row = first_row + line, term = k + at;
            left[line][at] = row < rows && term < depth ? a[row * a_row + term * a_column] : real(0);
            line = b_down ? x : y, at = b_down ? y : x, term = k + line;
            int target = blockIdx.x * TILE + at;
            right[line][at] = term < depth && target < columns ? b[term * b_row + target * b_column] : real(0);
        }
        __syncthreads();
        int terms = min(TILE, depth - k);  // no more: 0 times infinity would be NaN
        for (int j = 0; j < terms; j++) {
#pragma unroll
            for (int i = 0; i < OWN; i++) sums[i] += left[threadIdx.y + 8 * i][j] * right[j][x];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int row = first_row + threadIdx.y + 8 * i;
        if (row < rows && column < columns) out[(blockIdx.z * rows + row) * columns + column] = sums[i];
    }
}

// a: (matrices, n, n), of which there is one for all systems or one for each      b, x: (systems, n, columns)
KERNEL solve_triangular_kernel(
    int total, int n, int columns, int matrices, const real* a, const real* b, int lower, int unit_diagonal, real* x
) {
    EACH(i, total) {
        int system = i / columns, column = i % columns;
        const real* matrix = a + (matrices > 1 ? system * n * n : 0);
        int offset = system * n * columns + column;
        for (int step = 0; step < n; step++) {
            int row = lower ? step : n - 1 - step;
            real value = b[offset + row * columns];
            for (int known = 0; known < step; known++) {
                int j = lower ? known : n - 1 - known;
                value -= matrix[row * n + j] * x[offset + j * columns];
            }
            x[offset + row * columns] = unit_diagonal ? value : value / matrix[row * n + row];
        }
    }
}
