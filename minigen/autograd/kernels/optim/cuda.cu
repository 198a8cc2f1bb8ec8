// Updates of flat buffers. The order of operations is that of reference.py, and a*b + c is rounded twice: the same bits.
//
// dial: null, or where the numbers before it are, in a recorded step, which has others each time (dials.py).

#include "../common.cuh"

KERNEL adam_kernel(
    int n, real* param, const real* grad, real* m, real* v, real weight1, real weight2, real eps, real rate, real correction,
    real keep, const real* dial
) {
    if (dial) {
        rate = dial[0];
        correction = dial[1];
        keep = dial[2];
    }
    EACH(i, n) {
        real g = grad[i];
        real first = (1 - weight1) * m[i] + weight1 * g;
        real second = (1 - weight2) * v[i] + weight2 * (g * g);
        m[i] = first;
        v[i] = second;
        param[i] = param[i] * keep - rate * first / (sqrt(second) * correction + eps);
    }
}

KERNEL sgd_momentum_kernel(
    int n, real* param, const real* grad, real* velocity, real momentum, real decay, int nesterov, real rate, const real* dial
) {
    if (dial) rate = *dial;
    EACH(i, n) {
        real g = grad[i] + decay * param[i];
        real v = velocity[i] * momentum + g;
        velocity[i] = v;
        param[i] -= rate * (nesterov ? g + momentum * v : v);
    }
}

KERNEL ema_kernel(int n, real* average, const real* param, real weight, const real* dial) {
    if (dial) weight = *dial;
    EACH(i, n) average[i] += weight * (param[i] - average[i]);
}

KERNEL langevin_step_kernel(int n, const real* x, const real* grad, const real* noise, real step, real size, real* out) {
    EACH(i, n) out[i] = (x[i] - step * grad[i]) + size * noise[i];
}

// Each block sums the squares of every gridDim.x-th run of numbers; `sum_kernel`, one block, adds up what they found.
KERNEL squares_kernel(int n, const real* grad, Sum* parts) {
    Sum s = nothing();
    EACH(i, n) {
        real square = grad[i] * grad[i];
        add(s, square);
        s.error += fma(grad[i], grad[i], -square);
    }
    s = team_sum(s);
    if (threadIdx.x == 0) parts[blockIdx.x] = s;
}

KERNEL sum_kernel(int n, const Sum* parts, real* out) {
    Sum s = nothing();
    EACH(i, n) add(s, parts[i]);
    s = team_sum(s);
    if (threadIdx.x == 0) {
        out[0] = s.sum;
        out[1] = fabs(s.error) < INFINITE ? s.error : real(0);
    }
}
