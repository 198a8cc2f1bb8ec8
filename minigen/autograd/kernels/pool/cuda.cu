// Pooling and upsampling of channels-last images: one thread to a number of the result, neighbouring threads to neighbouring
// channels. Adjoints gather: the owner of a pixel looks up the windows that contain it.

#include "../common.cuh"

struct Windows {  // by value: what every window kernel needs to know
    int height, width, channels, out_height, out_width, kh, kw, sh, sw, ph, pw;
};

#define WINDOWS \
    int height, int width, int channels, int out_height, int out_width, int kh, int kw, int sh, int sw, int ph, int pw
#define THE_WINDOWS {height, width, channels, out_height, out_width, kh, kw, sh, sw, ph, pw}

// Pixels of the window at (y, x) that exist: rows top to bottom - 1, columns left to right - 1.
struct Box {
    int top, bottom, left, right;
};

__device__ inline Box window(const Windows& w, int y, int x) {
    int top = y * w.sh - w.ph, left = x * w.sw - w.pw;
    return {max(top, 0), min(top + w.kh, w.height), max(left, 0), min(left + w.kw, w.width)};
}

// Windows that contain the pixel (y, x).
__device__ inline Box containing(const Windows& w, int y, int x) {
    int top = y + w.ph - w.kh + 1, left = x + w.pw - w.kw + 1;
    return {
        top > 0 ? (top + w.sh - 1) / w.sh : 0, min((y + w.ph) / w.sh + 1, w.out_height),
        left > 0 ? (left + w.sw - 1) / w.sw : 0, min((x + w.pw) / w.sw + 1, w.out_width),
    };
}

struct Place {  // of the i-th number of images of `height` x `width`
    int image, y, x, channel;
};

__device__ inline Place place(int i, int height, int width, int channels) {
    int pixel = i / channels;
    return {pixel / width / height, pixel / width % height, pixel % width, i % channels};
}

__device__ inline int offset(int image, int y, int x, int channel, int height, int width, int channels) {
    return ((image * height + y) * width + x) * channels + channel;
}

#define INPUT(y, x) offset(p.image, y, x, p.channel, w.height, w.width, w.channels)
#define OUTPUT(y, x) offset(p.image, y, x, p.channel, w.out_height, w.out_width, w.channels)

__device__ inline bool same(real a, real b) { return a == b || (a != a && b != b); }

KERNEL max_pool2d_kernel(int size, WINDOWS, const real* in, real* out) {
    Windows w = THE_WINDOWS;
    EACH(i, size) {
        Place p = place(i, w.out_height, w.out_width, w.channels);
        Box box = window(w, p.y, p.x);
        real largest = -INFINITE;
        for (int y = box.top; y < box.bottom; y++)
            for (int x = box.left; x < box.right; x++) {
                real value = in[INPUT(y, x)];
                largest = largest > value || largest != largest ? largest : value;  // NaN stays
            }
        out[i] = largest;
    }
}

// For each window the sum of v, and the number, of the values that equal the maximum: the mean, or g shared among them.
KERNEL max_pool2d_tangent_kernel(int size, WINDOWS, const real* in, const real* v, const real* largest, real* out) {
    Windows w = THE_WINDOWS;
    EACH(i, size) {
        Place p = place(i, w.out_height, w.out_width, w.channels);
        Box box = window(w, p.y, p.x);
        real sum = 0, count = 0;
        for (int y = box.top; y < box.bottom; y++)
            for (int x = box.left; x < box.right; x++)
                if (same(in[INPUT(y, x)], largest[i])) {
                    sum += v[INPUT(y, x)];
                    count += 1;
                }
        out[i] = sum / count;
    }
}

KERNEL max_pool2d_share_kernel(int size, WINDOWS, const real* in, const real* g, const real* largest, real* share) {
    Windows w = THE_WINDOWS;
    EACH(i, size) {
        Place p = place(i, w.out_height, w.out_width, w.channels);
        Box box = window(w, p.y, p.x);
        real count = 0;
        for (int y = box.top; y < box.bottom; y++)
            for (int x = box.left; x < box.right; x++)
                if (same(in[INPUT(y, x)], largest[i])) count += 1;
        share[i] = g[i] / count;
    }
}

KERNEL max_pool2d_gradient_kernel(
    int size, WINDOWS, const real* in, const real* share, const real* largest, real* out
) {
    Windows w = THE_WINDOWS;
    EACH(i, size) {
        Place p = place(i, w.height, w.width, w.channels);
        Box box = containing(w, p.y, p.x);
        real sum = 0;
        for (int y = box.top; y < box.bottom; y++)
            for (int x = box.left; x < box.right; x++)
                if (same(in[i], largest[OUTPUT(y, x)])) sum += share[OUTPUT(y, x)];
        out[i] = sum;
    }
}

KERNEL avg_pool2d_kernel(int size, WINDOWS, const real* in, real* out) {
    Windows w = THE_WINDOWS;
    EACH(i, size) {
        Place p = place(i, w.out_height, w.out_width, w.channels);
        Box box = window(w, p.y, p.x);
        real sum = 0;
        for (int y = box.top; y < box.bottom; y++)
            for (int x = box.left; x < box.right; x++) sum += in[INPUT(y, x)];
        out[i] = sum / (w.kh * w.kw);
    }
}

KERNEL avg_pool2d_adjoint_kernel(int size, WINDOWS, const real* g, real* out) {
    Windows w = THE_WINDOWS;
    EACH(i, size) {
        Place p = place(i, w.height, w.width, w.channels);
        Box box = containing(w, p.y, p.x);
        real sum = 0;
        for (int y = box.top; y < box.bottom; y++)
            for (int x = box.left; x < box.right; x++) sum += g[OUTPUT(y, x)] / (w.kh * w.kw);
        out[i] = sum;
    }
}

// height, width: of the small image.
KERNEL upsample_nearest_kernel(int size, int height, int width, int channels, int down, int right, const real* in, real* out) {
    EACH(i, size) {
        Place p = place(i, height * down, width * right, channels);
        out[i] = in[offset(p.image, p.y / down, p.x / right, p.channel, height, width, channels)];
    }
}

KERNEL upsample_nearest_adjoint_kernel(
    int size, int height, int width, int channels, int down, int right, const real* g, real* out
) {
    EACH(i, size) {
        Place p = place(i, height, width, channels);
        real sum = 0;
        for (int y = p.y * down; y < (p.y + 1) * down; y++)
            for (int x = p.x * right; x < (p.x + 1) * right; x++)
                sum += g[offset(p.image, y, x, p.channel, height * down, width * right, channels)];
        out[i] = sum;
    }
}
