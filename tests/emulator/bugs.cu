// What goes wrong in kernels, over and over. Each kernel has one mistake, in the line that says BUG and which kind it is, and is
// right when compiled with -DFIXED. test_bugs.py has the checker find every one, and nothing in the fixed ones.
//
// All take n, x (n numbers) and out; n is 200 in blocks of 64, so that the last block has threads to spare.

#define KERNEL extern "C" __global__ void

#ifdef FIXED
#define ONLY_FIXED(...) __VA_ARGS__
#define EITHER(bug, fix) fix
#else
#define ONLY_FIXED(...)
#define EITHER(bug, fix) bug
#endif

#define BLOCK 64
#define INDEX (blockIdx.x * blockDim.x + threadIdx.x)

// ---- bounds

KERNEL no_guard(int n, const float* x, float* out) {
    int i = INDEX;
    ONLY_FIXED(if (i >= n) return;)
    out[i] = 2 * x[i];  // BUG bounds: the last block has more threads than numbers
}

KERNEL one_too_many(int n, const float* x, float* out) {
    int i = INDEX;
    if (EITHER(i <= n, i < n)) out[i] = 2 * x[i];  // BUG bounds: indices end at n - 1
}

KERNEL left_neighbour(int n, const float* x, float* out) {
    int i = INDEX;
    if (i < n) out[i] = x[i] - EITHER(x[i - 1], (i > 0 ? x[i - 1] : 0.0f));  // BUG bounds: the first has none
}

KERNEL negative_remainder(int n, const float* x, float* out) {
    int i = INDEX;
    if (i < n) out[i] = x[EITHER((i - 1) % n, (i + n - 1) % n)];  // BUG bounds: -1 % n is -1 in C
}

KERNEL wrong_row_length(int n, const float* x, float* out) {  // 10 rows of 20
    int column = threadIdx.x % 20, row = blockIdx.x * 3 + threadIdx.x / 20;
    if (threadIdx.x < 60 && row < 10) out[row * EITHER(21, 20) + column] = x[row * 20 + column];  // BUG bounds: rows have 20
}

KERNEL swapped_axes(int n, const float* x, float* out) {  // 10 rows of 20, one block to a row
    int row = blockIdx.x, column = threadIdx.x;
    if (row < 10 && column < 20) out[EITHER(column * 20 + row, row * 20 + column)] = x[row * 20 + column];  // BUG bounds: (y, x)
}

KERNEL stride_of_the_block(int n, const float* x, float* out) {
    int i = EITHER(blockIdx.x * gridDim.x + threadIdx.x * blockDim.x, INDEX);
    if (threadIdx.x < 8 && i < EITHER(n * 2, n)) out[i] = x[i];  // BUG bounds: block and thread are exchanged
}

KERNEL small_tile(int n, const float* x, float* out) {
    __shared__ float tile[EITHER(32, BLOCK)];
    int i = INDEX;
    tile[threadIdx.x] = i < n ? x[i] : 0;  // BUG bounds: a block has 64 threads
    __syncthreads();
    if (i < n) out[i] = tile[threadIdx.x];
}

KERNEL halo_off_by_one(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK + 2];
    int i = INDEX, t = threadIdx.x + 1;
    tile[t] = i < n ? x[i] : 0;
    if (threadIdx.x == 0) tile[0] = i > 0 ? x[i - 1] : 0;
    if (threadIdx.x == BLOCK - 1) tile[EITHER(t + 2, t + 1)] = i + 1 < n ? x[i + 1] : 0;  // BUG bounds: the tile ends at t + 1
    __syncthreads();
    if (i < n) out[i] = tile[t - 1] + tile[t] + tile[t + 1];
}

KERNEL tail_of_vectors(int n, const float* x, float* out) {  // four at a time
    int i = 4 * INDEX;
    if (EITHER(i < n + 4, i + 3 < n))
        *(float4*)(out + i) = *(const float4*)(x + i);  // BUG bounds: the last four are not all there
}

KERNEL dynamic_too_small(int n, const float* x, float* out) {
    extern __shared__ float dynamic[];
    int i = INDEX;
    dynamic[threadIdx.x] = i < n ? x[i] : 0;  // BUG bounds: the launch asks for bytes, not for numbers
    __syncthreads();
    if (i < n) out[i] = dynamic[threadIdx.x];
}

// ---- races inside a block

KERNEL no_barrier_after_filling(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    int i = INDEX;
    tile[threadIdx.x] = i < n ? x[i] : 0;
    ONLY_FIXED(__syncthreads();)
    if (i < n) out[i] = tile[BLOCK - 1 - threadIdx.x];  // BUG race uninitialised: not all of it is filled yet
}

KERNEL no_barrier_before_refilling(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    float sum = 0;
    for (int start = 0; start < 2 * BLOCK; start += BLOCK) {
        tile[threadIdx.x] = x[start + threadIdx.x];  // BUG race: others still read the last tile
        __syncthreads();
        sum += tile[(threadIdx.x + 1) % BLOCK];
        ONLY_FIXED(__syncthreads();)
    }
    if (INDEX < n) out[INDEX] = sum;
}

template <int WIDE>
__device__ inline float mirrored(float value) {
    __shared__ float tile[WIDE];
    tile[threadIdx.x] = value;
    __syncthreads();
    return tile[WIDE - 1 - threadIdx.x];  // read here, when others are already back
}

KERNEL called_twice(int n, const float* x, float* out) {
    float first = mirrored<BLOCK>(x[threadIdx.x]);
    ONLY_FIXED(__syncthreads();)
    float second = mirrored<BLOCK>(2 * x[threadIdx.x]);  // BUG race: the tile of the first call is still read
    if (INDEX < n) out[INDEX] = first + second;
}

KERNEL tree_without_barriers(int n, const float* x, float* out) {
    __shared__ float sums[BLOCK];
    int i = INDEX;
    sums[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) sums[threadIdx.x] += sums[threadIdx.x + step];  // BUG race: the last step must be over
        ONLY_FIXED(__syncthreads();)
    }
    if (threadIdx.x == 0) out[blockIdx.x] = sums[0];
}

KERNEL last_warp_without_barriers(int n, const float* x, float* out) {  // as was written before 2017
    __shared__ float sums[BLOCK];
    int i = INDEX, t = threadIdx.x;
    sums[t] = i < n ? x[i] : 0;
    __syncthreads();
    if (t < 32)
        for (int step = 32; step > 0; step /= 2) {
            float other = sums[t + step];
            ONLY_FIXED(__syncwarp();)
            sums[t] += other;  // BUG race: the threads of a warp do not march in step
            ONLY_FIXED(__syncwarp();)
        }
    if (t == 0) out[blockIdx.x] = sums[0];
}

KERNEL warp_reads_its_neighbour(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    int i = INDEX;
    tile[threadIdx.x] = i < n ? x[i] : 0;
    ONLY_FIXED(__syncwarp();)
    if (i < n) out[i] = tile[threadIdx.x ^ 1];  // BUG race uninitialised: a warp needs a barrier too
}

KERNEL scan_in_one_buffer(int n, const float* x, float* out) {  // Hillis and Steele
    __shared__ float sums[BLOCK];
    int i = INDEX, t = threadIdx.x;
    sums[t] = i < n ? x[i] : 0;
    __syncthreads();
    for (int step = 1; step < BLOCK; step *= 2) {
        float left = t >= step ? sums[t - step] : 0;
        ONLY_FIXED(__syncthreads();)
        sums[t] += left;  // BUG race: the right neighbour may not have read it yet
        __syncthreads();
    }
    if (i < n) out[i] = sums[t];
}

KERNEL everybody_writes(int n, const float* x, float* out) {
    float own = x[threadIdx.x];
    if (EITHER(true, threadIdx.x == 0)) out[blockIdx.x] = own;  // BUG race: one thread should
}

KERNEL result_of_another_thread(int n, const float* x, float* out) {
    __shared__ float best;
    if (threadIdx.x == BLOCK - 1) best = x[blockIdx.x];
    ONLY_FIXED(__syncthreads();)
    if (threadIdx.x == 0) out[blockIdx.x] = best;  // BUG race uninitialised: it may not be there yet
}

KERNEL smoothing_in_place(int n, float* x, float* out) {  // one block
    int i = threadIdx.x;
    if (blockIdx.x) return;
    float left = x[i], right = x[i + 1];
    ONLY_FIXED(__syncthreads();)
    x[i] = (left + right) / 2;  // BUG race: the left neighbour may not have read it yet
}

KERNEL transposed_in_place(int n, float* x, float* out) {  // 8 x 8, one block
    int row = threadIdx.x / 8, column = threadIdx.x % 8;
    if (blockIdx.x) return;
    float value = x[column * 8 + row];
    ONLY_FIXED(__syncthreads();)
    x[row * 8 + column] = value;  // BUG race: its number has not been read by all
}

KERNEL shared_histogram(int n, const float* x, float* out) {
    __shared__ int bins[8];
    if (threadIdx.x < 8) bins[threadIdx.x] = 0;
    __syncthreads();
    int bin = threadIdx.x % 8;
    EITHER(bins[bin]++, atomicAdd(&bins[bin], 1));  // BUG race: read, add and write are three steps
    __syncthreads();
    if (threadIdx.x < 8) out[blockIdx.x * 8 + threadIdx.x] = bins[threadIdx.x];
}

KERNEL atomic_and_plain(int n, const float* x, float* out) {
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1);
    ONLY_FIXED(__syncthreads();)
    if (threadIdx.x == 0) out[blockIdx.x] = count;  // BUG race: others still add
}

// ---- races between blocks

KERNEL histogram(int n, const float* x, float* out) {
    int i = INDEX;
    if (i < n) EITHER(out[i % 8] += 1, atomicAdd(&out[i % 8], 1.0f));  // BUG race: read, add and write are three steps
}

KERNEL sum_of_all_blocks(int n, const float* x, float* out) {
    if (threadIdx.x == 0) EITHER(out[0] += x[blockIdx.x], atomicAdd(&out[0], x[blockIdx.x]));  // BUG race: blocks meet in it
}

KERNEL barrier_for_all_blocks(int n, const float* x, float* out) {  // there is none in a launch
    int i = INDEX, from = EITHER((i + BLOCK) % n, i);
    if (i < n) out[i] = 2 * x[i];
    __syncthreads();
    if (i < n && out[from] > 1e30f) out[from] = 0;  // BUG race: another block's
}

KERNEL overlapping_blocks(int n, const float* x, float* out) {
    int i = blockIdx.x * EITHER((BLOCK - 1), BLOCK) + threadIdx.x;
    if (i < n) out[i] = x[i] + blockIdx.x;  // BUG race: the last of a block is the first of the next
}

// ---- shared memory that nobody has written

KERNEL sum_from_anything(int n, const float* x, float* out) {
    __shared__ float sums[BLOCK];
    ONLY_FIXED(sums[threadIdx.x] = 0;)
    if (INDEX < n) sums[threadIdx.x] += x[INDEX];  // BUG uninitialised: it does not start at 0
    if (INDEX < n) out[INDEX] = sums[threadIdx.x];
}

KERNEL atomic_from_anything(int n, const float* x, float* out) {
    __shared__ int count;
    ONLY_FIXED(if (threadIdx.x == 0) count = 0; __syncthreads();)
    atomicAdd(&count, 1);  // BUG uninitialised: it does not start at 0
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = count;
}

KERNEL tail_of_the_tile(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    int i = INDEX;
    if (EITHER(i < n, true)) tile[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();
    float sum = 0;
    for (int t = 0; t < BLOCK; t++) sum += tile[t];  // BUG uninitialised: the last block's tile is half full
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// ---- barriers that some do not reach

KERNEL barrier_in_a_branch(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    int i = INDEX;
    tile[threadIdx.x] = 0;
    if (i < n) {
        tile[threadIdx.x] = x[i];
        EITHER(__syncthreads(), (void)0);  // BUG divergence: threads beyond n do not come here
    }
    ONLY_FIXED(__syncthreads();)
    if (i < n) out[i] = tile[BLOCK - 1 - threadIdx.x];
}

KERNEL return_before_a_barrier(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    int i = INDEX;
    EITHER(if (i >= n) return, (void)0);
    tile[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();  // BUG divergence: some have gone
    if (i < n) out[i] = tile[threadIdx.x];
}

KERNEL barrier_in_a_loop(int n, const float* x, float* out) {
    __shared__ float sums[BLOCK];
    sums[threadIdx.x] = 0;
    for (int i = EITHER(INDEX, blockIdx.x * blockDim.x); i < n; i += gridDim.x * blockDim.x) {
        __syncthreads();  // BUG divergence: as often as the thread has numbers
        sums[threadIdx.x] += 1;
    }
    if (INDEX < n) out[INDEX] = sums[threadIdx.x];
}

KERNEL two_barriers(int n, const float* x, float* out) {
    __shared__ float tile[BLOCK];
    tile[threadIdx.x] = x[threadIdx.x];
    if (EITHER(threadIdx.x % 2, blockIdx.x % 2)) {
        __syncthreads();  // BUG divergence: the others wait at another one
    } else {
        __syncthreads();
    }
    if (INDEX < n) out[INDEX] = tile[BLOCK - 1 - threadIdx.x];
}

// ---- warps

KERNEL shuffle_in_a_branch(int n, const float* x, float* out) {
    float sum = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) sum += __shfl_xor_sync(EITHER(0xffffffffu, 0x0000ffffu), sum, 8);  // BUG deadlock: half a warp
    if (INDEX < n) out[INDEX] = sum;
}

KERNEL shuffle_after_return(int n, const float* x, float* out) {
    int i = INDEX;
    EITHER(if (i >= n) return, (void)0);
    float value = i < n ? x[i] : 0;
    value += __shfl_down_sync(0xffffffffu, value, 1);  // BUG deadlock: lanes beyond n have gone
    if (i < n) out[i] = value;
}

KERNEL shuffle_from_outside(int n, const float* x, float* out) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) value = __shfl_sync(0x0000ffffu, value, EITHER(16, 15));  // BUG lane: 16 is not in the mask
    if (INDEX < n) out[INDEX] = value;
}

KERNEL not_in_its_mask(int n, const float* x, float* out) {
    float value = x[threadIdx.x];
    value += __shfl_xor_sync(EITHER(0x7fffffffu, 0xffffffffu), value, 0);  // BUG lane deadlock: lane 31 comes too
    if (INDEX < n) out[INDEX] = value;
}

// ---- alignment

KERNEL vectors_at_any_place(int n, const float* x, float* out) {
    const float* start = x + EITHER(1, 4);
    if (INDEX == 0) *(float4*)out = *(const float4*)start;  // BUG misaligned: 16 bytes begin at multiples of 16
}

KERNEL doubles_among_floats(int n, const float* x, float* out) {
    double two = *(const double*)(x + EITHER(3, 2));  // BUG misaligned: 8 bytes begin at multiples of 8
    if (INDEX == 0) out[0] = (float)two;
}
