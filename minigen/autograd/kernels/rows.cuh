// Maxima and sums of exponentials of rows, for softmax and the losses.

// The largest number of a row, with 0 for a row of -inf or of nothing.
__device__ inline real highest_of(const real* row, int n) {
    real highest = -INFINITE;
    for (int i = threadIdx.x; i < n; i += blockDim.x) highest = larger(row[i], highest);
    highest = team_max(highest);
    return highest == -INFINITE ? real(0) : highest;
}

// x - max: also where both are infinite.
__device__ inline real shifted(real x, real highest) { return x == highest ? real(0) : x - highest; }

// 1 for a row of -inf: it then gives zeros.
__device__ inline real sum_of_exponentials(const real* row, int n, real highest) {
    Sum s = nothing();
    for (int i = threadIdx.x; i < n; i += blockDim.x) add(s, exp(shifted(row[i], highest)));
    real sum = total(team_sum(s));
    return sum == 0 ? real(1) : sum;
}
