// Adding into rows by index. Every element of the result has one owner, a thread, which adds in the order of the index.

#include "../common.cuh"

// The rows in ascending order, and where each stood, equal ones in the order in which they stood: each finds its place by
// counting those that come before it. For few rows, in a step that is recorded, where a library's sort would wait.
KERNEL rank_kernel(int n, const long long* rows, long long* sorted, long long* order) {
    EACH(i, n) {
        long long row = rows[i];
        int place = 0;
        for (int j = 0; j < n; j++) place += rows[j] < row || (rows[j] == row && j < i);
        sorted[place] = row;
        order[place] = i;
    }
}

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
