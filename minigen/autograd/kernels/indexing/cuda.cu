// Adding into rows by index. Every element of the result has one owner, a thread, which adds in the order of the index.

#include "../common.cuh"

// sorted: the rows in ascending order (stable), order: where each stood. A thread finds its row by bisection, and adds.
// Rows outside 0 .. size - 1 give NaN everywhere: they show, without the device being asked at every step.
KERNEL scatter_add_kernel(
    int total, int count, int columns, int size, const real* values, const long long* sorted, const long long* order, real* out
) {
    EACH(i, total) {
        int column = i % columns, row = i / columns % size, batch = i / columns / size;
        int low = 0, high = count;
        while (low < high) {
            int middle = (low + high) / 2;
            if (sorted[middle] < row) low = middle + 1;
            else high = middle;
        }
        bool wrong = count > 0 && (sorted[0] < 0 || sorted[count - 1] >= size);
        real sum = wrong ? INFINITE - INFINITE : real(0);
        for (; low < count && sorted[low] == row; low++) sum += values[(batch * count + (int)order[low]) * columns + column];
        out[i] = sum;
    }
}
