// Chains of elementwise operations in one pass over memory. The formulas are those of reference.py.

#include "../common.cuh"
#include "../activation.cuh"

KERNEL bias_act_kernel(int size, int columns, const real* x, const real* bias, int activation, real slope, real* out) {
    EACH(i, size) out[i] = activate(activation, slope, x[i] + bias[i % columns]);
}

// kept: y for the activations whose derivative follows from it, else x, to which the bias is then added.
KERNEL bias_act_vjp_kernel(
    int size, int columns, const real* g, const real* kept, const real* bias, int activation, real slope, real* gx
) {
    bool from_output = activation >= RELU && activation <= SIGMOID;
    EACH(i, size) {
        real z = from_output ? kept[i] : kept[i] + bias[i % columns];
        gx[i] = activation_vjp(activation, slope, g[i], z);
    }
}

KERNEL gated_tanh_kernel(int size, int columns, const real* x, real* out) {
    EACH(i, size) {
        const real* a = x + i + i / columns * columns;  // rows of x are twice as long
        out[i] = tanh(a[0]) * sigmoid_of(a[columns]);
    }
}

KERNEL gated_tanh_vjp_kernel(int size, int columns, const real* g, const real* x, real* out) {
    EACH(i, size) {
        int a = i + i / columns * columns, b = a + columns;
        real t = tanh(x[a]), s = sigmoid_of(x[b]), rest = sigmoid_of(-x[b]);
        out[a] = g[i] * (s * (1 - t * t));
        out[b] = g[i] * (t * (s * rest));
    }
}

KERNEL sample_normal_kl_kernel(
    int rows, int n, const real* mu, const real* logvar, const real* eps, real* z, real* kl
) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, first = row * n;
    if (row >= rows) n = 0;
    Sum s = nothing();
    for (int i = first + threadIdx.x; i < first + n; i += blockDim.x) {
        real growth = expm1(logvar[i]);
        add(s, mu[i] * mu[i] + (growth == INFINITE ? growth : growth - logvar[i]));
        z[i] = mu[i] + (eps[i] == 0 ? real(0) : exp(real(0.5) * logvar[i]) * eps[i]);
    }
    s = team_sum(s);
    if (row < rows && threadIdx.x == 0) kl[row] = real(0.5) * total(s);
}

KERNEL sample_normal_kl_vjp_kernel(
    int size, int columns, const real* gz, const real* gkl, const real* mu, const real* logvar, const real* eps, real* gmu,
    real* glogvar
) {
    EACH(i, size) {
        real g = gkl[i / columns], moved = gz[i] * eps[i];
        real stretch = moved == 0 ? real(0) : moved * exp(real(0.5) * logvar[i]);
        gmu[i] = gz[i] + (g == 0 ? real(0) : g * mu[i]);
        glogvar[i] = real(0.5) * (stretch + (g == 0 ? real(0) : g * expm1(logvar[i])));
    }
}
