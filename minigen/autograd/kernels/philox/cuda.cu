// Philox4x32-10 and its distributions: one thread to a block of 128 bits. The same bits as reference.py, which explains
// every step; a*b + c is rounded twice throughout.

#include "../common.cuh"

typedef unsigned int word;
typedef unsigned long long word64;

struct Words {
    word w[4];
};

__device__ inline Words philox4x32(word64 key, word64 stream, word64 block) {
    word c0 = (word)block, c1 = (word)(block >> 32), c2 = (word)stream, c3 = (word)(stream >> 32);
    word k0 = (word)key, k1 = (word)(key >> 32);
    for (int round = 0; round < 10; round++) {
        word64 p0 = (word64)0xD2511F53u * c0, p1 = (word64)0xCD9E8D57u * c2;
        c0 = (word)(p1 >> 32) ^ c1 ^ k0;
        c1 = (word)p1;
        c2 = (word)(p0 >> 32) ^ c3 ^ k1;
        c3 = (word)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// ---- formats.py, the row of this type

#if REAL_BITS == 32
typedef word bits;
typedef int integer;
#define PER_BLOCK 4
#define MANTISSA 23
#define SQRT_HALF 0x3f3504f3
#define UNIT real(2.3283064365386963e-10)
#define FRACTION real(5.9604644775390625e-08)
#define LN2 real(0.69314718)
__device__ inline integer pattern_of(real x) { return __float_as_int(x); }
__device__ inline real number_of(integer x) { return __int_as_float(x); }
__device__ inline bits draw(const Words& words, int i) { return words.w[i]; }
__device__ const real LOG[] = {0.66666776f, 0.39977542f, 0.29871732f};
__device__ const real SIN[] = {1.5707964f, -0.6459635f, 0.07968003f, -0.004601658f};
__device__ const real COS[] = {-1.2337005f, 0.25366923f, -0.020860165f, 0.00090376654f};
#else
typedef word64 bits;
typedef long long integer;
#define PER_BLOCK 2
#define MANTISSA 52
#define SQRT_HALF 0x3fe6a09e667f3bcdLL
#define UNIT real(5.421010862427522e-20)
#define FRACTION real(1.1102230246251565e-16)
#define LN2 real(0.6931471805599453)
__device__ inline integer pattern_of(real x) { return __double_as_longlong(x); }
__device__ inline real number_of(integer x) { return __longlong_as_double(x); }
__device__ inline bits draw(const Words& words, int i) { return words.w[2 * i] | (word64)words.w[2 * i + 1] << 32; }
__device__ const real LOG[] = {0.6666666666666734, 0.39999999999414654, 0.28571428742391597, 0.22222198572840465,
                               0.18183564342221895, 0.15314050162244672, 0.1479595352520824};
__device__ const real SIN[] = {1.5707963267948966, -0.6459640975062443, 0.07969262624603954, -0.004681754132282172,
                               0.000160441150290026, -3.5986417491803493e-06, 5.6337203462028334e-08};
__device__ const real COS[] = {-1.2337005501361697, 0.2536695079010468, -0.02086348076331257, 0.0009192602741910826,
                               -2.5202036788364266e-05, 4.7106096711099197e-07, -6.321202225895778e-09};
#endif

template <int n>
__device__ inline real horner(real z, const real (&coefficients)[n]) {
    real value = coefficients[n - 1];
    for (int i = n - 2; i >= 0; i--) value = value * z + coefficients[i];
    return value;
}

__device__ inline void box_muller(bits u, bits v, real& first, real& second) {
    u |= 1;
    integer pattern = pattern_of((real)u);
    integer e = (pattern - SQRT_HALF) >> MANTISSA;
    real m = number_of(pattern - e * ((integer)1 << MANTISSA));
    real f = e == REAL_BITS ? (real)(integer)u * UNIT : m - 1;
    real s = f / (2 + f);
    real z = s * s;
    real log_m = s * (2 + z * horner(z, LOG));
    real log_u = (real)(e - REAL_BITS) * LN2 + log_m;
    real radius = sqrt(-2 * log_u);

    real t = (real)(integer)(v << 2 | 2) * UNIT;
    z = t * t;
    real sine = t * horner(z, SIN);
    real cosine = 1 + z * horner(z, COS);
    if ((integer)v < 0) radius = -radius;
    bool swap = v >> (REAL_BITS - 2) & 1;
    first = radius * (swap ? sine : cosine);
    second = radius * (swap ? cosine : sine);
}

// ---- kernels: the n draws of a call; thread b makes those of its b-th block. dial: where to begin instead of at `block`,
// in a recorded step, which begins elsewhere each time (dials.py); otherwise null.

KERNEL bits_kernel(word64 key, word64 stream, word64 block, const word64* dial, int n, word* out) {
    if (dial) block = *dial;
    EACH(b, (n + 3) / 4) {
        Words words = philox4x32(key, stream, block + b);
        for (int i = 0; i < 4 && 4 * b + i < n; i++) out[4 * b + i] = words.w[i];
    }
}

KERNEL uniform_kernel(word64 key, word64 stream, word64 block, const word64* dial, int n, real low, real span, real highest, real* out) {
    if (dial) block = *dial;
    EACH(b, (n + PER_BLOCK - 1) / PER_BLOCK) {
        Words words = philox4x32(key, stream, block + b);
        for (int i = 0; i < PER_BLOCK && PER_BLOCK * b + i < n; i++) {
            real u = (real)(draw(words, i) >> (REAL_BITS - MANTISSA - 1)) * FRACTION;
            real x = low + span * u;
            out[PER_BLOCK * b + i] = x < highest ? x : highest;
        }
    }
}

KERNEL normal_kernel(word64 key, word64 stream, word64 block, const word64* dial, int n, real mean, real std, real* out) {
    if (dial) block = *dial;
    EACH(b, (n + PER_BLOCK - 1) / PER_BLOCK) {
        Words words = philox4x32(key, stream, block + b);
        for (int i = 0; i < PER_BLOCK && PER_BLOCK * b + i < n; i += 2) {
            real first, second;
            box_muller(draw(words, i), draw(words, i + 1), first, second);
            out[PER_BLOCK * b + i] = mean + std * first;
            if (PER_BLOCK * b + i + 1 < n) out[PER_BLOCK * b + i + 1] = mean + std * second;
        }
    }
}

// span: high - low, 0 standing for 2^64.     threshold: 2^64 mod span.
KERNEL integers_kernel(
    word64 key, word64 stream, word64 block, const word64* dial, int n, word64 low, word64 span, word64 threshold, word64* out
) {
    if (dial) block = *dial;
    EACH(i, n) {
        for (word64 place = block + i / 2;; place += 1ULL << 56) {
            Words words = philox4x32(key, stream, place);
            word64 x = i % 2 ? words.w[2] | (word64)words.w[3] << 32 : words.w[0] | (word64)words.w[1] << 32;
            if (span == 0 || x * span >= threshold) {
                out[i] = low + (span == 0 ? x : __umul64hi(x, span));
                break;
            }
        }
    }
}

// each: 1 where p has a number for every draw, 0 where it has one for all.
KERNEL bernoulli_kernel(word64 key, word64 stream, word64 block, const word64* dial, int n, const real* p, int each, real* out) {
    if (dial) block = *dial;
    EACH(b, (n + 3) / 4) {
        Words words = philox4x32(key, stream, block + b);
        for (int i = 0; i < 4 && 4 * b + i < n; i++) {
            word64 threshold = (word64)(p[each * (4 * b + i)] * real(4294967296.0));
            out[4 * b + i] = words.w[i] < threshold ? real(1) : real(0);
        }
    }
}
