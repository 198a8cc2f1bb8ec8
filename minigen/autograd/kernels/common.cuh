// What every kernel file may use. A file is compiled once for float and once for double, which it calls `real`.
//
// Python passes typed scalars: int for sizes, real for numbers. Threads of a row form a team, threadIdx.x of blockDim.x
// (32 or 256), and there are blockDim.y teams in a block. All threads of a block must reach every call of team_*.

typedef REAL real;

#define EACH(i, n) for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)
#define KERNEL extern "C" __global__ void

#if REAL_BITS == 32
#define INFINITE __int_as_float(0x7f800000)
#else
#define INFINITE __longlong_as_double(0x7ff0000000000000LL)
#endif

// ---- sums with the rounding error of every addition beside them (Neumaier 1974): nearly as exact as twice the digits

struct Sum {
    real sum, error;
};

__device__ inline Sum nothing() { return {real(0), real(0)}; }

__device__ inline void add(Sum& s, real x) {
    real t = s.sum + x;
    s.error += fabs(s.sum) >= fabs(x) ? (s.sum - t) + x : (x - t) + s.sum;
    s.sum = t;
}

__device__ inline void add(Sum& s, Sum other) {
    add(s, other.sum);
    s.error += other.error;
}

// An infinite sum has no error: the differences above were then NaN.
__device__ inline real total(Sum s) { return fabs(s.error) < INFINITE ? s.sum + s.error : s.sum; }

// ---- results of a team: the same in all of its threads, the same bits every time

__device__ inline Sum team_sum(Sum s) {
    __shared__ Sum parts[32];
    for (int step = 16; step > 0; step /= 2) {
        Sum other = {__shfl_xor_sync(0xffffffffu, s.sum, step), __shfl_xor_sync(0xffffffffu, s.error, step)};
        add(s, other);
    }
    if (blockDim.x == 32) return s;
    __syncthreads();  // the last call's parts have been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = s;
    __syncthreads();
    s = parts[0];
    for (int i = 1; i < blockDim.x / 32; i++) add(s, parts[i]);
    return s;
}

__device__ inline real larger(real a, real b) { return a > b || b != b ? a : b; }  // a number rather than NaN

__device__ inline real team_max(real x) {
    __shared__ real parts[32];
    for (int step = 16; step > 0; step /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, step));
    if (blockDim.x == 32) return x;
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (int i = 1; i < blockDim.x / 32; i++) x = larger(x, parts[i]);
    return x;
}

__device__ inline real sigmoid_of(real x) {
    real e = exp(-fabs(x));
    return (x < 0 ? e : real(1)) / (1 + e);
}
