// Triangular systems by substitution: one thread to a column of the solution, which no other thread reads.

#include "../common.cuh"

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
