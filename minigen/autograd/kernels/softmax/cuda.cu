// Softmax of rows: a team to each row, a warp or a block. The formulas, and what infinities give, are in reference.py.

#include "../common.cuh"
#include "../rows.cuh"

KERNEL softmax_kernel(int rows, int n, const real* x, real* out) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    x += row * n;
    out += row * n;
    real highest = highest_of(x, n), sum = sum_of_exponentials(x, n, highest);
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = exp(shifted(x[i], highest)) / sum;
}

KERNEL softmax_vjp_kernel(int rows, int n, const real* g, const real* p, real* out) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    g += row * n;
    p += row * n;
    out += row * n;
    Sum s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, g[i] * p[i]);
    real product = total(team_sum(s));
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = p[i] * (g[i] - product);
}

KERNEL log_softmax_kernel(int rows, int n, const real* x, real* out) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    x += row * n;
    out += row * n;
    real highest = highest_of(x, n), log_sum = log(sum_of_exponentials(x, n, highest));
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = shifted(x[i], highest) - log_sum;
}

KERNEL log_softmax_vjp_kernel(int rows, int n, const real* g, const real* log_p, real* out) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    g += row * n;
    log_p += row * n;
    out += row * n;
    Sum s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, g[i]);
    real sum = total(team_sum(s));
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = g[i] - exp(log_p[i]) * sum;
}
