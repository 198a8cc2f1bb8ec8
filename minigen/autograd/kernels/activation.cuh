// The activations of fused kernels. The numbers are positions in fused.reference.ACTIVATIONS.

enum { NONE, RELU, LEAKY_RELU, TANH, SIGMOID, SILU };

__device__ inline real activate(int activation, real slope, real z) {
    switch (activation) {
        case RELU: return z <= 0 ? real(0) : z;
        case LEAKY_RELU: return z <= 0 ? slope * z : z;
        case TANH: return tanh(z);
        case SIGMOID: return sigmoid_of(z);
        case SILU: return (z == -INFINITE ? real(0) : z) * sigmoid_of(z);  // not -inf times 0
        default: return z;
    }
}

// g f'(z). kept is f(z) for RELU ... SIGMOID, z for the others.
__device__ inline real activation_vjp(int activation, real slope, real g, real kept) {
    switch (activation) {
        case RELU: return kept <= 0 ? real(0) : g;
        case LEAKY_RELU: return kept <= 0 ? slope * g : g;
        case TANH: return g * (1 - kept * kept);
        case SIGMOID: return g * (kept * (1 - kept));
        case SILU: {
            real s = sigmoid_of(kept), rest = sigmoid_of(-kept);
            return g * (s + (fabs(kept) == INFINITE ? real(0) : kept) * (s * rest));
        }
        default: return g;
    }
}
