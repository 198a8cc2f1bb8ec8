// Losses of logits. The formulas are those of reference.py.

#include "../common.cuh"
#include "../rows.cuh"

// A class outside 0 .. n - 1 gives NaN: the loss shows it, without the device being asked at every step.
KERNEL cross_entropy_kernel(
    int rows, int n, const real* x, const long long* target, real keep, real smoothing, real* loss, real* highest_out,
    real* inverse
) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) n = 0;
    x += row * n;
    real highest = highest_of(x, n), sum = sum_of_exponentials(x, n, highest), mean = 0;
    if (smoothing != 0) {  // the same for all threads
        Sum s = nothing();
        for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, shifted(x[i], highest));
        mean = total(team_sum(s)) / n;
    }
    if (row >= rows || threadIdx.x != 0) return;
    long long label = target[row];
    real chosen = label < 0 || label >= n ? INFINITE - INFINITE : shifted(x[label], highest);
    if (smoothing != 0) chosen = keep * chosen + smoothing * mean;
    loss[row] = log(sum) - chosen;
    highest_out[row] = highest;
    inverse[row] = 1 / sum;
}

KERNEL cross_entropy_vjp_kernel(
    int size, int n, const real* g, const real* x, const long long* target, const real* highest, const real* inverse,
    real hit, real miss, real* out
) {
    EACH(i, size) {
        int row = i / n;
        real p = exp(shifted(x[i], highest[row])) * inverse[row];
        out[i] = g[row] * (p - (i - row * n == target[row] ? hit : miss));
    }
}

KERNEL bce_with_logits_kernel(int n, const real* xs, const real* targets, real* out) {
    EACH(i, n) {
        real x = xs[i], a = fabs(x), against = x > 0 ? 1 - targets[i] : targets[i];
        out[i] = (against == 0 ? real(0) : a * against) + log1p(exp(-a));
    }
}

// each: 1 where g has a number for every element, 0 where it has one for all.
KERNEL bce_with_logits_vjp_kernel(int n, const real* g, int each, const real* xs, const real* targets, real* out) {
    EACH(i, n) {
        real x = xs[i], e = exp(-fabs(x));
        real against = (x > 0 ? 1 - targets[i] : targets[i]) - e / (1 + e);
        out[i] = g[each * i] * (x > 0 ? against : -against);
    }
}
