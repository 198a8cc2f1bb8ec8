// CUDA C for a C++ compiler: what a kernel's text may use that C++ does not have. It is put before the text, which stays as it
// is. Names that NVRTC does not know (INFINITY and others of <math.h>) are taken away, so that they are refused here too.

#pragma once

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "runtime.h"

#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef M_PI
#undef M_E
#undef M_LN2
#undef M_SQRT2
#undef M_SQRT1_2

// ---- declarations. What a block shares is what one thread of the host has, for that runs the block; so shared variables are
// thread-local, which puts them into memory of their own. Each has room behind it: an index that is too large leaves it.

#define __global__ __attribute__((noinline))  // so that the checker sees all of a kernel, and nothing else
#define __device__ static
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((used, aligned(32768))) __thread

#define HERE \
    emulator::Place { file, line }
#define AT const char *file = __builtin_FILE(), int line = __builtin_LINE()  // of the call

typedef uint3 dim3;
static const int warpSize = 32;

#define VECTOR(type, name) \
    struct __align__(2 * sizeof(type)) name##2 { type x, y; }; \
    struct __align__(4 * sizeof(type)) name##4 { type x, y, z, w; }; \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTOR(float, float)
VECTOR(int, int)
VECTOR(unsigned, uint)
#undef VECTOR

// ---- numbers

namespace emulator {
template <class To, class From>
static inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits are of one size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}  // namespace emulator
static inline float __int_as_float(int x) { return emulator::same_bits<float>(x); }
static inline int __float_as_int(float x) { return emulator::same_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return emulator::same_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return emulator::same_bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return emulator::same_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return emulator::same_bits<long long>(x); }

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

#define SMALLER(type) \
    static inline type min(type a, type b) { return b < a ? b : a; } \
    static inline type max(type a, type b) { return a < b ? b : a; }
SMALLER(int)
SMALLER(unsigned)
SMALLER(long long)
SMALLER(unsigned long long)
#undef SMALLER
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
#define __expf(x) expf(x)  // the host's library has functions of these names
#define __logf(x) logf(x)
#define __fdividef(a, b) ((a) / (b))
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static inline float normcdff(float x) { return (float)normcdf((double)x); }
static inline float normcdf(float x) { return normcdff(x); }
template <class T>
static inline T __ldg(const T* address) {
    return *address;
}

// ---- threads that wait for each other

static inline void __syncthreads(AT) { emulator_barrier(HERE); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, AT) { emulator_meet(mask, 0, HERE); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

namespace emulator {
static inline int own_lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

// The value of another lane; a lane outside of this thread's group of `width` keeps its own. Asking a lane that is not in
// the mask is an error.
template <class T>
static inline T shuffle(unsigned mask, T value, int from, int width, bool inside, Place place) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles take values of 4 or 8 bytes");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    const unsigned long long* met = emulator_meet(mask, bits, place);
    if (!inside) return value;
    if (!(mask >> from & 1)) emulator_bad_lane(from, place);
    T result;
    memcpy(&result, met + from, sizeof result);
    return result;
}
}  // namespace emulator
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int from, int width = 32, AT) {
    return emulator::shuffle(mask, value, emulator::own_lane() / width * width + (from & (width - 1)), width, true, HERE);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, AT) {
    int from = emulator::own_lane() - (int)by;
    return emulator::shuffle(mask, value, from, width, from >= emulator::own_lane() / width * width, HERE);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, AT) {
    int from = emulator::own_lane() + (int)by;
    return emulator::shuffle(mask, value, from, width, from < emulator::own_lane() / width * width + width, HERE);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, AT) {
    int from = emulator::own_lane() ^ with;
    return emulator::shuffle(mask, value, from, width, from / width == emulator::own_lane() / width, HERE);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, AT) {
    const unsigned long long* met = emulator_meet(mask, predicate != 0, HERE);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) votes |= (unsigned)met[lane] << lane;
    return votes;
}
static inline int __any_sync(unsigned mask, int predicate, AT) { return __ballot_sync(mask, predicate, file, line) != 0; }
static inline int __all_sync(unsigned mask, int predicate, AT) { return __ballot_sync(mask, predicate, file, line) == mask; }

// ---- atomics: threads run one at a time, so a plain update is one. The checker is told, and looks no further.

#define UNWATCHED __attribute__((no_sanitize("thread"), noinline))
#define ATOMIC(name, type, update) \
    UNWATCHED static type name(type* address, type value) { \
        emulator_atomic(address, sizeof(type), __builtin_return_address(0)); \
        type old = *address; \
        *address = update; \
        return old; \
    }
#define ATOMICS(type) \
    ATOMIC(atomicAdd, type, old + value) \
    ATOMIC(atomicExch, type, value)
#define INTEGER_ATOMICS(type) \
    ATOMICS(type) \
    ATOMIC(atomicMin, type, value < old ? value : old) \
    ATOMIC(atomicMax, type, value > old ? value : old) \
    ATOMIC(atomicAnd, type, old & value) \
    ATOMIC(atomicOr, type, old | value) \
    UNWATCHED static type atomicCAS(type* address, type expected, type value) { \
        emulator_atomic(address, sizeof(type), __builtin_return_address(0)); \
        type old = *address; \
        if (old == expected) *address = value; \
        return old; \
    }
INTEGER_ATOMICS(int)
INTEGER_ATOMICS(unsigned)
INTEGER_ATOMICS(unsigned long long)
ATOMICS(float)
ATOMICS(double)
#undef ATOMIC
#undef ATOMICS
#undef INTEGER_ATOMICS

// ---- how Python calls a kernel: arguments by address, and a signature such as "i4 *f4 *f4", pointers with a star

namespace emulator {
template <class T>
constexpr const char* numpy_name() {
    using U = std::remove_cv_t<T>;
    constexpr int n = sizeof(U);
    if constexpr (std::is_same_v<U, bool>) return "b1";
    else if constexpr (std::is_floating_point_v<U>) return n == 4 ? "f4" : "f8";
    else if constexpr (!std::is_integral_v<U>) return "struct";
    else if constexpr (std::is_signed_v<U>) return n == 1 ? "i1" : n == 2 ? "i2" : n == 4 ? "i4" : "i8";
    else return n == 1 ? "u1" : n == 2 ? "u2" : n == 4 ? "u4" : "u8";
}

template <class P>
static void describe(char* signature) {
    if (std::is_pointer_v<P>) strcat(signature, "*");
    strcat(signature, numpy_name<std::remove_pointer_t<P>>());
    strcat(signature, " ");
}

template <class... P>
static void signature_of(void (*)(P...), char* signature) {
    (describe<P>(signature), ...);
}

template <class... P, size_t... I>
UNWATCHED static void unpack(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<P>*)arguments[I]...);
}

template <class... P>
UNWATCHED static void call(void (*kernel)(P...), void** arguments) {
    unpack(kernel, arguments, std::index_sequence_for<P...>());
}

}  // namespace emulator

#define EXPORT(name) \
    extern "C" __attribute__((visibility("default"))) void emulator_call_##name(void** arguments) { emulator::call(&name, arguments); } \
    extern "C" __attribute__((visibility("default"))) void emulator_signature_##name(char* text) { emulator::signature_of(&name, text); }
