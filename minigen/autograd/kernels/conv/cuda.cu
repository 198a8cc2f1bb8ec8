// Convolution as a matrix product whose left matrix is never stored (implicit GEMM). Start at `convolve`.
//
// Rows are destination pixels, columns destination channels, and the sum runs over taps and source channels. A block makes
// a tile of ROWS x COLUMNS results, a thread a small square of it. Step by step the block brings DEPTH columns of the left
// matrix and DEPTH rows of the weights into shared memory, where each number is used by many threads.
//
// Padding is a zero that is multiplied: where a weight is infinite or NaN, so are the sums that it meets padding in.

#include "../common.cuh"

#define DEPTH 16
#define THREADS 256

struct Axis {  // geometry.Phase: destination pixels that see the same taps
    int pixels, to, to_step, start, step, taps, gap, tap, tap_step;
};

#define AXIS(a) int a##1, int a##2, int a##3, int a##4, int a##5, int a##6, int a##7, int a##8, int a##9
#define THE_AXIS(a) {a##1, a##2, a##3, a##4, a##5, a##6, a##7, a##8, a##9}

struct Sizes {
    int batch, source_height, source_width, source_channels, height, width, channels;  // of all groups
    int groups, group_step, tap_y_step, tap_x_step, source_step;  // steps within the weights; destination channels lie at 1
    Axis y, x;
};

#define SIZES \
    int batch, int source_height, int source_width, int source_channels, int height, int width, int channels, int groups, \
    int group_step, int tap_y_step, int tap_x_step, int source_step, AXIS(y), AXIS(x)
#define THE_SIZES \
    {batch, source_height, source_width, source_channels, height, width, channels, groups, group_step, tap_y_step, \
     tap_x_step, source_step, THE_AXIS(y), THE_AXIS(x)}

struct Pixel {  // the m-th of a phase: its image, and where its taps begin in the source
    int image, y, x;
};

__device__ inline Pixel pixel(const Sizes& s, int m) {
    int row = m / s.x.pixels;
    return {row / s.y.pixels, row % s.y.pixels, m % s.x.pixels};
}

struct Tap {  // the k-th term of a sum
    int y, x, channel;
};

__device__ inline Tap tap(const Sizes& s, int k, int channels) {
    int both = k / channels;
    return {both / s.x.taps, both % s.x.taps, k % channels};
}

// The left matrix at (pixel, tap): 0 in the padding.
__device__ inline real source_at(const Sizes& s, const real* source, Pixel p, Tap t, int first_channel) {
    int y = s.y.start + p.y * s.y.step + t.y * s.y.gap, x = s.x.start + p.x * s.x.step + t.x * s.x.gap;
    if (y < 0 || y >= s.source_height || x < 0 || x >= s.source_width) return 0;
    return source[((p.image * s.source_height + y) * s.source_width + x) * s.source_channels + first_channel + t.channel];
}

// Add the products of DEPTH rows: left (DEPTH, ROWS), right (DEPTH, COLUMNS), to this thread's HIGH x WIDE results.
template <int HIGH, int WIDE, int LEFT, int RIGHT>
__device__ inline void multiply(
    const real (&left)[DEPTH][LEFT], const real (&right)[DEPTH][RIGHT], int row, int column, real (&sums)[HIGH][WIDE]
) {
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        real a[HIGH], b[WIDE];
#pragma unroll
        for (int i = 0; i < HIGH; i++) a[i] = left[k][row + i];
#pragma unroll
        for (int j = 0; j < WIDE; j++) b[j] = right[k][column + j];
#pragma unroll
        for (int i = 0; i < HIGH; i++)
#pragma unroll
            for (int j = 0; j < WIDE; j++) sums[i][j] += a[i] * b[j];
    }
}

template <int ROWS, int COLUMNS, int HIGH, int WIDE>
__device__ inline void convolve(const Sizes& s, const real* source, const real* weights, real* out) {
    static_assert(ROWS / HIGH * (COLUMNS / WIDE) == THREADS, "one square for each thread");
    __shared__ __align__(16) real left[DEPTH][ROWS + 4];  // + 4: columns of a warp's writes fall into other banks
    __shared__ __align__(16) real right[DEPTH][COLUMNS];
    const int loads = ROWS * DEPTH / THREADS, lines = THREADS / DEPTH;
    int rows = s.batch * s.y.pixels * s.x.pixels;
    int source_channels = s.source_channels / s.groups, columns = s.channels / s.groups;
    int depth = s.y.taps * s.x.taps * source_channels;
    int first_row = blockIdx.x * ROWS, first_column = blockIdx.y * COLUMNS, group = blockIdx.z;
    int t = threadIdx.x, row = t / (COLUMNS / WIDE) * HIGH, column = t % (COLUMNS / WIDE) * WIDE;
    int own_k = t % DEPTH, own_line = t / DEPTH;  // what this thread loads: neighbours load neighbouring channels
    Pixel pixels[loads];
#pragma unroll
    for (int i = 0; i < loads; i++) pixels[i] = pixel(s, min(first_row + own_line + i * lines, rows - 1));
    weights += group * s.group_step;
    real sums[HIGH][WIDE] = {};
    for (int k = 0; k < depth; k += DEPTH) {
        bool inside = k + own_k < depth;
        Tap own = inside ? tap(s, k + own_k, source_channels) : Tap{0, 0, 0};
#pragma unroll
        for (int i = 0; i < loads; i++)
            left[own_k][own_line + i * lines] =
                inside ? source_at(s, source, pixels[i], own, group * source_channels) : real(0);
        for (int i = t; i < DEPTH * COLUMNS; i += THREADS) {
            int line = i / COLUMNS, c = first_column + i % COLUMNS;
            real value = 0;
            if (k + line < depth && c < columns) {
                Tap at = tap(s, k + line, source_channels);
                value = weights[(s.y.tap + at.y * s.y.tap_step) * s.tap_y_step + (s.x.tap + at.x * s.x.tap_step) * s.tap_x_step
                                + at.channel * s.source_step + c];
            }
            right[line][i % COLUMNS] = value;
        }
        __syncthreads();
        multiply(left, right, row, column, sums);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < HIGH; i++) {
        int m = first_row + row + i;
        if (m >= rows) return;
        Pixel p = pixel(s, m);
        int y = s.y.to + p.y * s.y.to_step, x = s.x.to + p.x * s.x.to_step;
        real* target = out + ((p.image * s.height + y) * s.width + x) * s.channels + group * columns;
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            if (first_column + column + j < columns) target[first_column + column + j] = sums[i][j];
    }
}

// Versions of the tile: the larger, the more often a number is used once it is in shared memory; narrow ones for images of
// few channels, where the columns of a wide one would lie idle.
KERNEL convolve_128x64(SIZES, const real* source, const real* weights, real* out) {
    Sizes s = THE_SIZES;
    convolve<128, 64, 8, 4>(s, source, weights, out);
}

KERNEL convolve_64x64(SIZES, const real* source, const real* weights, real* out) {
    Sizes s = THE_SIZES;
    convolve<64, 64, 4, 4>(s, source, weights, out);
}

KERNEL convolve_256x16(SIZES, const real* source, const real* weights, real* out) {
    Sizes s = THE_SIZES;
    convolve<256, 16, 4, 4>(s, source, weights, out);
}

KERNEL convolve_256x4(SIZES, const real* source, const real* weights, real* out) {
    Sizes s = THE_SIZES;
    convolve<256, 4, 4, 1>(s, source, weights, out);
}

// ---- the gradient of the weights: rows are taps and input channels, columns output channels, the sum runs over pixels

// parts: (chunks, taps * input channels of a group, C_out), the sums over `length` pixels each.
template <int COLUMNS, int WIDE>
__device__ inline void weight_gradient(const Sizes& s, int length, const real* x, const real* g, real* parts) {
    const int ROWS = 64, HIGH = ROWS * COLUMNS / WIDE / THREADS;
    __shared__ __align__(16) real left[DEPTH][ROWS];
    __shared__ __align__(16) real right[DEPTH][COLUMNS];
    const int lines = THREADS / ROWS;
    int in_channels = s.source_channels / s.groups, columns = s.channels / s.groups;
    int rows = s.y.taps * s.x.taps * in_channels, tiles = (columns + COLUMNS - 1) / COLUMNS;
    int first_row = blockIdx.x * ROWS, group = blockIdx.y / tiles, first_column = blockIdx.y % tiles * COLUMNS;
    int first = blockIdx.z * length, last = min(first + length, s.batch * s.height * s.width);
    int t = threadIdx.x, row = t / (COLUMNS / WIDE) * HIGH, column = t % (COLUMNS / WIDE) * WIDE;
    bool used = first_row + t % ROWS < rows;
    Tap own = used ? tap(s, first_row + t % ROWS, in_channels) : Tap{0, 0, 0};
    real sums[HIGH][WIDE] = {};
    for (int m = first; m < last; m += DEPTH) {
        for (int line = t / ROWS; line < DEPTH; line += lines)
            left[line][t % ROWS] =
                used && m + line < last ? source_at(s, x, pixel(s, m + line), own, group * in_channels) : real(0);
        for (int i = t; i < DEPTH * COLUMNS; i += THREADS) {
            int line = i / COLUMNS, c = first_column + i % COLUMNS;
            right[line][i % COLUMNS] =
                m + line < last && c < columns ? g[(m + line) * s.channels + group * columns + c] : real(0);
        }
        __syncthreads();
        multiply(left, right, row, column, sums);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < HIGH; i++)
#pragma unroll
        for (int j = 0; j < WIDE; j++) {
            int k = first_row + row + i, c = first_column + column + j;
            if (k < rows && c < columns) parts[(blockIdx.z * rows + k) * s.channels + group * columns + c] = sums[i][j];
        }
}

KERNEL weight_gradient_64(SIZES, int length, const real* x, const real* g, real* parts) {
    Sizes s = THE_SIZES;
    weight_gradient<64, 4>(s, length, x, g, parts);
}

KERNEL weight_gradient_16(SIZES, int length, const real* x, const real* g, real* parts) {
    Sizes s = THE_SIZES;
    weight_gradient<16, 1>(s, length, x, g, parts);
}
