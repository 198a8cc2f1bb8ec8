// What capture.py needs: numbers that change from step to step, written to the device as arguments of a launch. A copy from
// the host would have to be waited for, or its source kept until it is done.

#include "common.cuh"

typedef unsigned long long word64;

KERNEL set_words_kernel(
    int n, word64 a, word64 b, word64 c, word64 d, word64 e, word64 f, word64 g, word64 h, word64* out
) {
    word64 words[] = {a, b, c, d, e, f, g, h};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < n && threadIdx.x == i) out[i] = words[i];
}
