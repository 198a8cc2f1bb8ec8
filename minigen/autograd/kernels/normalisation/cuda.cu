// Normalisation by statistics of the data. The formulas are those of reference.py.
//
// Images are channels-last, so the numbers of a channel lie C apart. A block takes 32 neighbouring channels (x) of 8
// positions (y) at a time, so that a warp reads 32 neighbours; it sums a chunk of positions, per channel. What the chunks
// and the channels of a group found is put together by a team. All of this has one order, given by the shapes.
// Deviations above 1e19 overflow when they are squared in float.

#include "../common.cuh"
#include "../activation.cuh"

__device__ inline real root_of(real std, real eps) { return sqrt(std * std + eps); }

__device__ inline Sum column_sum(Sum s) {  // over the 8 rows of a block; the result is in all of them
    __shared__ Sum shared[8][32];
    __syncthreads();
    shared[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    s = shared[0][threadIdx.x];
    for (int y = 1; y < 8; y++) add(s, shared[y][threadIdx.x]);
    return s;
}

// x: (N, positions, C) -> means, squares: (N, chunks, C), the mean of a chunk, and the sum of squares around it.
KERNEL chunk_statistics_kernel(
    int positions, int channels, int chunks, int length, const real* x, real* means, real* squares
) {
    int c = blockIdx.x * 32 + threadIdx.x, chunk = blockIdx.y, sample = blockIdx.z;
    int first = chunk * length + threadIdx.y, last = min((chunk + 1) * length, positions);
    if (c >= channels) first = last;
    x += sample * positions * channels + c;
    Sum s = nothing();
    for (int p = first; p < last; p += 8) add(s, x[p * channels]);
    real mean = total(column_sum(s)) / (last - chunk * length);
    s = nothing();
    for (int p = first; p < last; p += 8) {
        real d = x[p * channels] - mean;
        add(s, d * d);
    }
    s = column_sum(s);
    if (threadIdx.y == 0 && c < channels) {
        means[(sample * chunks + chunk) * channels + c] = mean;
        squares[(sample * chunks + chunk) * channels + c] = total(s);
    }
}

// Mean and standard deviation of each group, from those of its chunks (Chan, Golub & LeVeque 1979). A team to a group.
KERNEL group_statistics_kernel(
    int rows, int groups, int positions, int channels, int chunks, int length, const real* means, const real* squares,
    real* mean_out, real* std_out
) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;  // sample * groups + group
    int width = channels / groups, parts = row < rows ? chunks * width : 0;
    int start = row / groups * chunks * channels + row % groups * width;
    real count = (real)positions * width;
    Sum s = nothing();
    for (int i = threadIdx.x; i < parts; i += blockDim.x) {
        int chunk = i / width;
        add(s, (real)min(length, positions - chunk * length) * means[start + chunk * channels + i % width]);
    }
    real mean = total(team_sum(s)) / count;
    s = nothing();
    for (int i = threadIdx.x; i < parts; i += blockDim.x) {
        int chunk = i / width, at = start + chunk * channels + i % width;
        real d = means[at] - mean;
        add(s, squares[at] + (real)min(length, positions - chunk * length) * (d * d));
    }
    s = team_sum(s);
    if (row < rows && threadIdx.x == 0) {
        mean_out[row] = mean;
        std_out[row] = sqrt(total(s) / count);
    }
}

KERNEL group_norm_kernel(
    int size, int positions, int channels, int groups, const real* x, const real* weight, const real* bias, const real* mean,
    const real* std, real eps, int activation, real slope, real* y
) {
    int width = channels / groups;
    EACH(i, size) {
        int c = i % channels, group = i / channels / positions * groups + c / width;
        real normalised = (x[i] - mean[group]) / root_of(std[group], eps);
        y[i] = activate(activation, slope, normalised * weight[c] + bias[c]);
    }
}

struct Normalised {
    real value, d;  // x̂, and g f'(weight x̂ + bias)
};

__device__ inline Normalised normalised_of(
    real g, real x, real mean, real std, real eps, real weight, real bias, int activation, real slope
) {
    real value = (x - mean) / root_of(std, eps), kept = value * weight + bias;
    if (activation == TANH || activation == SIGMOID) kept = activate(activation, slope, kept);
    return {value, activation_vjp(activation, slope, g, kept)};
}

// first, second: (N, chunks, C), the sums of d and of d x̂ over a chunk of positions.
KERNEL chunk_gradients_kernel(
    int positions, int channels, int groups, int chunks, int length, const real* g, const real* x, const real* weight,
    const real* bias, const real* mean, const real* std, real eps, int activation, real slope, real* first, real* second
) {
    int c = blockIdx.x * 32 + threadIdx.x, chunk = blockIdx.y, sample = blockIdx.z;
    int start = chunk * length + threadIdx.y, last = min((chunk + 1) * length, positions);
    if (c >= channels) start = last;
    int group = sample * groups + c / (channels / groups);
    Sum a = nothing(), b = nothing();
    for (int p = start; p < last; p += 8) {
        int i = (sample * positions + p) * channels + c;
        Normalised n = normalised_of(g[i], x[i], mean[group], std[group], eps, weight[c], bias[c], activation, slope);
        add(a, n.d);
        add(b, n.d * n.value);
    }
    a = column_sum(a);
    b = column_sum(b);
    if (threadIdx.y == 0 && c < channels) {
        first[(sample * chunks + chunk) * channels + c] = total(a);
        second[(sample * chunks + chunk) * channels + c] = total(b);
    }
}

// The averages of weight d and of weight d x̂ over a group, from the sums of its channels (N, C). A team to a group.
KERNEL group_gradients_kernel(
    int rows, int groups, int positions, int channels, const real* first, const real* second, const real* weight,
    real* first_out, real* second_out
) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, width = channels / groups;
    int sample = row / groups, group = row % groups, n = row < rows ? width : 0;
    Sum a = nothing(), b = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int c = group * width + i;
        add(a, weight[c] * first[sample * channels + c]);
        add(b, weight[c] * second[sample * channels + c]);
    }
    a = team_sum(a);
    b = team_sum(b);
    real count = (real)positions * width;
    if (row < rows && threadIdx.x == 0) {
        first_out[row] = total(a) / count;
        second_out[row] = total(b) / count;
    }
}

KERNEL group_norm_vjp_kernel(
    int size, int positions, int channels, int groups, const real* g, const real* x, const real* weight, const real* bias,
    const real* mean, const real* std, real eps, int activation, real slope, const real* first, const real* second, real* gx
) {
    int width = channels / groups;
    EACH(i, size) {
        int c = i % channels, group = i / channels / positions * groups + c / width;
        Normalised n = normalised_of(g[i], x[i], mean[group], std[group], eps, weight[c], bias[c], activation, slope);
        gx[i] = (n.d * weight[c] - first[group] - n.value * second[group]) / root_of(std[group], eps);
    }
}

// ---- rows: a team to each

KERNEL layer_norm_kernel(
    int rows, int n, const real* x, const real* weight, const real* bias, real eps, real* y, real* mean_out, real* std_out
) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, count = n;
    x += row * n;
    y += row * n;
    if (row >= rows) n = 0;
    Sum s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, x[i]);
    real mean = total(team_sum(s)) / count;
    s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        real d = x[i] - mean;
        add(s, d * d);
    }
    real var = total(team_sum(s)) / count, root = sqrt(var + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = (x[i] - mean) / root * weight[i] + bias[i];
    if (row < rows && threadIdx.x == 0) {
        mean_out[row] = mean;
        std_out[row] = sqrt(var);
    }
}

KERNEL layer_norm_vjp_kernel(
    int rows, int n, const real* g, const real* x, const real* weight, const real* mean, const real* std, real eps, real* gx
) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, count = n, at = row < rows ? row : 0;
    real centre = mean[at], root = root_of(std[at], eps);
    g += row * n;
    x += row * n;
    gx += row * n;
    if (row >= rows) n = 0;
    Sum a = nothing(), b = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        real weighted = g[i] * weight[i];
        add(a, weighted);
        add(b, weighted * ((x[i] - centre) / root));
    }
    real first = total(team_sum(a)) / count, second = total(team_sum(b)) / count;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        gx[i] = (g[i] * weight[i] - first - (x[i] - centre) / root * second) / root;
}

// first, second: (chunks, n), the sums of g and of g x̂ over a chunk of rows.
KERNEL row_gradients_kernel(
    int rows, int n, int chunks, int length, const real* g, const real* x, const real* mean, const real* std, real eps,
    real* first, real* second
) {
    int c = blockIdx.x * 32 + threadIdx.x, chunk = blockIdx.y;
    int start = chunk * length + threadIdx.y, last = min((chunk + 1) * length, rows);
    if (c >= n) start = last;
    Sum a = nothing(), b = nothing();
    for (int row = start; row < last; row += 8) {
        int i = row * n + c;
        add(a, g[i]);
        add(b, g[i] * ((x[i] - mean[row]) / root_of(std[row], eps)));
    }
    a = column_sum(a);
    b = column_sum(b);
    if (threadIdx.y == 0 && c < n) {
        first[chunk * n + c] = total(a);
        second[chunk * n + c] = total(b);
    }
}
