// Sums over an axis, and logarithms of sums of exponentials. Every sum has one order, given by the shapes.

#include "../common.cuh"
#include "../rows.cuh"

// x: (outer, rows, n) -> parts: (outer, chunks, n), the sums of `length` rows each. A block has 32 columns (x) of 8 rows
// at a time (y), so that a warp reads 32 neighbours.
KERNEL sum_rows_kernel(int rows, int n, int chunks, int length, const real* x, real* parts) {
    __shared__ Sum shared[8][32];
    int column = blockIdx.x * 32 + threadIdx.x, chunk = blockIdx.y, outer = blockIdx.z;
    int first = chunk * length, last = min(first + length, rows);
    Sum s = nothing();
    if (column < n)
        for (int row = first + threadIdx.y; row < last; row += 8) add(s, x[(outer * rows + row) * n + column]);
    shared[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y == 0 && column < n) {
        for (int y = 1; y < 8; y++) add(s, shared[y][threadIdx.x]);
        parts[(outer * chunks + chunk) * n + column] = total(s);
    }
}

KERNEL logsumexp_kernel(int rows, int n, const real* x, real* out) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    x += row * n;
    real highest = highest_of(x, n);
    Sum s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, exp(shifted(x[i], highest)));
    s = team_sum(s);
    if (row < rows && threadIdx.x == 0) out[row] = log(total(s)) + highest;
}

KERNEL logsumexp_vjp_kernel(int rows, int n, const real* g, const real* x, const real* y, real* out) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    x += row * n;
    out += row * n;
    real top = row < rows ? y[row] : real(0), scale = row < rows ? g[row] : real(0);
    Sum s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, x[i] == INFINITE ? real(1) : real(0));
    real infinite = total(team_sum(s));
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        bool shares = top == INFINITE && x[i] == INFINITE;
        out[i] = scale * (shares ? 1 / infinite : exp(top == -INFINITE ? top : x[i] - top));
    }
}
