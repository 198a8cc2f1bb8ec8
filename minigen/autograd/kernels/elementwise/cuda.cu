// Functions of each element: one thread to an element. The formulas are those of reference.py.

#include "../common.cuh"

#define FAR real(1000)  // e^-1000 is 0: beyond, a function that decays like e^-|x| may be computed here

__device__ inline real not_below(real x) { return x < -FAR ? -FAR : x; }

__device__ inline real near(real x) { return x > FAR ? FAR : not_below(x); }

__device__ inline real gelu_u(real x) {
    return real(0.7978845608028654) * (x + real(0.044715) * x * x * x);  // sqrt(2 / pi), Hendrycks & Gimpel 2016
}

#define OF_X(name, value) \
    KERNEL name(int n, const real* xs, real* out) { \
        EACH(i, n) { real x = xs[i]; out[i] = value; } \
    }
#define OF_X_AND(name, parameter, value) \
    KERNEL name(int n, const real* xs, real parameter, real* out) { \
        EACH(i, n) { real x = xs[i]; out[i] = value; } \
    }
#define OF_G_AND(name, second, value) \
    KERNEL name(int n, const real* gs, const real* seconds, real* out) { \
        EACH(i, n) { real g = gs[i], second = seconds[i]; out[i] = value; } \
    }
#define OF_G_AND_AND(name, second, parameter, value) \
    KERNEL name(int n, const real* gs, const real* seconds, real parameter, real* out) { \
        EACH(i, n) { real g = gs[i], second = seconds[i]; out[i] = value; } \
    }

OF_X(exp_kernel, exp(x))
OF_X(expm1_kernel, expm1(x))
OF_X(log_kernel, log(x))
OF_X(log1p_kernel, log1p(x))
OF_X(tanh_kernel, tanh(x))
OF_X(sigmoid_kernel, sigmoid_of(x))
OF_X(erf_kernel, erf(x))
OF_X(relu_kernel, x <= 0 ? real(0) : x)
OF_X(silu_kernel, not_below(x) * sigmoid_of(x))
OF_X(gelu_kernel, not_below(x) * normcdf(x))
OF_X(gelu_tanh_kernel, not_below(x) * sigmoid_of(2 * gelu_u(x)))
OF_X_AND(softplus_kernel, beta, (beta * x > 0 ? x : real(0)) + log1p(exp(-fabs(beta * x))) / beta)
OF_X_AND(leaky_relu_kernel, slope, x <= 0 ? slope * x : x)
OF_X_AND(elu_kernel, alpha, x <= 0 ? alpha * expm1(x) : x)

OF_G_AND(chain_kernel, d, g == 0 ? real(0) : g * d)
OF_G_AND(chain_divide_kernel, d, g == 0 ? real(0) : g / d)
OF_G_AND(tanh_vjp_kernel, y, g * (1 - y * y))
OF_G_AND(sigmoid_vjp_kernel, y, g * (y * (1 - y)))
OF_G_AND(relu_vjp_kernel, y, y <= 0 ? real(0) : g)
OF_G_AND_AND(leaky_relu_vjp_kernel, y, slope, y <= 0 ? slope * g : g)
OF_G_AND_AND(elu_vjp_kernel, y, alpha, y <= 0 ? g * (y + alpha) : g)
OF_G_AND(erf_vjp_kernel, x, g * (real(1.1283791670955126) * exp(-x * x)))
OF_G_AND_AND(softplus_vjp_kernel, x, beta, g * sigmoid_of(beta * x))

KERNEL silu_vjp_kernel(int n, const real* gs, const real* xs, real* out) {
    EACH(i, n) {
        real x = near(xs[i]);
        out[i] = gs[i] * (sigmoid_of(x) * (1 + x * sigmoid_of(-x)));
    }
}

KERNEL gelu_vjp_kernel(int n, const real* gs, const real* xs, real* out) {
    EACH(i, n) {
        real x = near(xs[i]), density = exp(real(-0.5) * x * x) * real(0.3989422804014327);
        out[i] = gs[i] * (normcdf(x) + x * density);
    }
}

KERNEL gelu_tanh_vjp_kernel(int n, const real* gs, const real* xs, real* out) {
    EACH(i, n) {
        real x = near(xs[i]), u = gelu_u(x);
        real slope = real(1.5957691216057308) * (1 + real(3 * 0.044715) * x * x);  // 2 u'
        out[i] = gs[i] * (sigmoid_of(2 * u) * (1 + x * slope * sigmoid_of(-2 * u)));
    }
}
