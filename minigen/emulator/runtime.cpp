// The emulated device: blocks one after another, and the threads of a block as fibers on one thread of the host.
//
// Start at `run_block`. A thread runs until it ends, or meets a barrier (__syncthreads) or its warp (a shuffle, a vote,
// __syncwarp); then the next one runs. When all have arrived, all go on. In what order threads come is the schedule: a correct
// kernel gives the same bits with each.

#include "runtime.h"

#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <new>
#include <numeric>
#include <vector>

namespace emulator {

enum State { READY, AT_BARRIER, AT_WARP, ENDED };

struct Fiber;

struct Thread {
    State state;
    Fiber* fiber;  // null before the first step
    Place place;   // where it waits
    unsigned mask;
    unsigned long long value;
};

static const int LIMIT = 1024, WARP = 32;
static const size_t STACK = 256 << 10;  // bytes for the local variables of a thread

// CUDA's own variables. Their names have no type in the binary: device.h declares them constant, here they are not.
extern "C" {
uint3 threadIdx_ asm("threadIdx"), blockIdx_ asm("blockIdx"), blockDim_ asm("blockDim"), gridDim_ asm("gridDim");
}

static Launch launch;
static Entry entry;
static void** arguments;
static Report* report;
static Thread threads[LIMIT];
static Thread* current;
static int count, warps;              // threads of a block, and warps
static unsigned block, epoch, warp_epochs[LIMIT / WARP];
static unsigned long long met[WARP];  // the values of the warp that has just met
static bool stopped;
static char* dynamic_shared;

// ---- fibers: a stack each, and a place in the text to go on from

static char* stacks;
static std::vector<Fiber*> idle;  // whose thread has ended: the next thread runs on the same, warm, stack

static void run_threads();

#if defined(__x86_64__) && !defined(USE_UCONTEXT)

struct Fiber {
    void* stack_pointer;
};
static Fiber scheduler;

// Save the registers that a function must keep, and the stack pointer; take those of the other fiber.
extern "C" void switch_fiber(void** from, void* to);
asm(R"(
.text
.hidden switch_fiber
.type switch_fiber, @function
switch_fiber:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size switch_fiber, .-switch_fiber
)");

static void switch_to(Fiber& from, Fiber& to) { switch_fiber(&from.stack_pointer, to.stack_pointer); }

static void prepare(Fiber& fiber, char* stack) {
    void** top = (void**)(stack + STACK) - 1;  // as after a call: the stack pointer is 8 bytes off a multiple of 16
    *--top = (void*)run_threads;
    fiber.stack_pointer = top - 6;  // six registers, of no meaning yet
}

#else

struct Fiber {
    ucontext_t context;
};
static Fiber scheduler;

static void switch_to(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

static void prepare(Fiber& fiber, char* stack) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = STACK;
    makecontext(&fiber.context, run_threads, 0);
}

#endif

static Fiber fibers[LIMIT];

static void run_threads() {  // what a fiber does: one thread after another
    for (;;) {
        entry(arguments);
        current->state = ENDED;
        switch_to(*current->fiber, scheduler);
    }
}

static void make_fibers() {
    if (!stacks) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* memory = mmap(nullptr, LIMIT * STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        stacks = (char*)memory;
    }
    idle.clear();
    for (int i = LIMIT - 1; i >= 0; i--) {
        prepare(fibers[i], stacks + i * STACK);
        idle.push_back(&fibers[i]);
    }
}

// ---- a block

static std::vector<int> order_of(int n, unsigned& random) {
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    if (launch.schedule == 1) std::reverse(order.begin(), order.end());
    if (launch.schedule == 2)
        for (int i = n - 1; i > 0; i--) {
            random = random * 1664525u + 1013904223u;
            std::swap(order[i], order[(random >> 8) % (i + 1)]);
        }
    return order;
}

static void resume(int t) {
    current = &threads[t];
    threadIdx_ = thread_index(t);
    if (!current->fiber) {
        current->fiber = idle.back();
        idle.pop_back();
    }
    Fiber* fiber = current->fiber;
    switch_to(scheduler, *fiber);
    if (threads[t].state == ENDED) idle.push_back(fiber);
}

static Party party(int t) {
    Party p = {};
    p.block = block_index(block);
    p.thread = thread_index(t);
    p.place = threads[t].place;
    return p;
}

static void fail(const Report& found) {  // from the scheduler
    *report = found;
    stopped = true;
}

// Let the lanes go on whose whole mask has arrived at the same place. Returns whether there were any.
static bool release_lanes(int first, int lanes) {
    bool released = false;
    for (int lane = 0; lane < lanes; lane++) {
        Thread& own = threads[first + lane];
        if (own.state != AT_WARP) continue;
        bool complete = true;
        for (int other = 0; other < WARP; other++) {
            if (!(own.mask >> other & 1)) continue;
            const Thread& t = threads[first + other];
            complete &= other < lanes && t.state == AT_WARP && t.mask == own.mask && t.place.line == own.place.line;
        }
        if (!complete) continue;
        unsigned mask = own.mask;
        for (int other = 0; other < lanes; other++)
            if (mask >> other & 1) {
                threads[first + other].state = READY;
                met[other] = threads[first + other].value;
            }
        released = true;
    }
    return released;
}

// Lanes wait for others of their mask that have ended, wait elsewhere, or do not exist.
static void report_deadlock(int first, int lanes) {
    Report found = {};
    found.failure = DEADLOCK;
    for (int lane = 0; lane < lanes; lane++) {
        if (threads[first + lane].state != AT_WARP) continue;
        found.one = party(first + lane);
        unsigned mask = threads[first + lane].mask;
        for (int other = 0; other < WARP; other++) {
            if (!(mask >> other & 1)) continue;
            bool here = other < lanes && threads[first + other].state == AT_WARP && threads[first + other].mask == mask &&
                        threads[first + other].place.line == threads[first + lane].place.line;
            if (here) continue;
            found.waiting = other;  // the lane that is missing
            found.threads = other >= lanes ? -1 : threads[first + other].state;
            if (other < lanes) found.other = party(first + other);
            return fail(found);
        }
    }
}

static void run_warp(int warp, const std::vector<int>& order) {
    int first = warp * WARP, lanes = std::min(WARP, count - first);
    for (;;) {
        for (int lane : order) {
            if (lane < lanes && threads[first + lane].state == READY) resume(first + lane);
            if (stopped) return;
        }
        bool waiting = false;
        for (int lane = 0; lane < lanes; lane++) waiting |= threads[first + lane].state == AT_WARP;
        if (!waiting) return;
        if (!release_lanes(first, lanes)) return report_deadlock(first, lanes);
        warp_epochs[warp]++;
    }
}

static void run_block(unsigned& random) {
    for (int t = 0; t < count; t++) threads[t] = {READY, nullptr, {}, 0, 0};
    std::vector<int> warp_order = order_of(warps, random), lane_order = order_of(WARP, random);
    for (epoch = 1;; epoch++) {
        for (int warp : warp_order) {
            run_warp(warp, lane_order);
            if (stopped) return;
        }
        int waiting = 0, here = -1, elsewhere = -1;
        for (int t = 0; t < count; t++)
            if (threads[t].state == AT_BARRIER) {
                waiting++;
                if (here < 0) here = t;
            }
        if (!waiting) return;
        for (int t = 0; t < count; t++)
            if (threads[t].state != AT_BARRIER || threads[t].place.line != threads[here].place.line) elsewhere = t;
        if (elsewhere >= 0) {
            Report found = {};
            found.failure = DIVERGENCE;
            found.waiting = waiting;
            found.threads = count;
            found.one = party(here);
            found.other = party(elsewhere);
            if (threads[elsewhere].state == ENDED) found.other.place = {nullptr, 0};
            return fail(found);
        }
        for (int t = 0; t < count; t++) threads[t].state = READY;
    }
}

// ---- what Python calls

extern "C" __attribute__((visibility("default"))) void emulator_run(
    Entry kernel, void** kernel_arguments, const Launch* wanted, Report* found
) {
    launch = *wanted;
    entry = kernel;
    arguments = kernel_arguments;
    report = found;
    *report = {};
    stopped = false;
    blockDim_ = launch.block;
    gridDim_ = launch.grid;
    count = launch.block.x * launch.block.y * launch.block.z;
    warps = (count + WARP - 1) / WARP;
    make_fibers();
    std::vector<char> dynamic(launch.dynamic + (64 << 10));  // with room for those who go too far
    dynamic_shared = (char*)(((size_t)dynamic.data() + 255) & ~(size_t)255);
#ifdef CHECKED
    check_launch(launch, dynamic_shared);
#endif
    long long blocks = (long long)launch.grid.x * launch.grid.y * launch.grid.z;
    unsigned random = launch.seed;
    long long stride = launch.schedule == 2 ? blocks / 2 + 1 : 1;  // visits all blocks if it has no factor in common
    while (std::gcd(stride, blocks) != 1) stride++;
    for (long long i = 0; i < blocks && !stopped; i++) {
        block = (unsigned)(launch.schedule == 1 ? blocks - 1 - i : i * stride % blocks);
        blockIdx_ = block_index(block);
        // 0xff in all bytes is a NaN, of float as of double, and -1: shared memory starts with anything but zeros.
        for (int v = 0; v < launch.variable_count; v++)
            memset(launch.variables[v].begin, 0xff, launch.variables[v].end - launch.variables[v].begin);
        memset(dynamic_shared, 0xff, launch.dynamic);
#ifdef CHECKED
        check_block();
#endif
        run_block(random);
#ifdef CHECKED
        if (launch.measure && !stopped) measure_block();
#endif
    }
}

// ---- what kernels call

static void wait(State state, Place place) {
    current->state = state;
    current->place = place;
    switch_to(*current->fiber, scheduler);
}

extern "C" void emulator_barrier(Place place) { wait(AT_BARRIER, place); }

extern "C" const unsigned long long* emulator_meet(unsigned mask, unsigned long long value, Place place) {
    unsigned own = (current - threads) % WARP;
    if (!(mask >> own & 1)) emulator_bad_lane(own, place);
    current->mask = mask;
    current->value = value;
    wait(AT_WARP, place);
    return met;
}

extern "C" void emulator_bad_lane(int lane, Place place) {
    current->place = place;
    Report found = {};
    found.failure = BAD_LANE;
    found.waiting = lane;
    found.one = party(current - threads);
    stop(found);
}

// Linked behind all shared variables, so that there is room behind the last one too; they are found from its address.
static __thread __attribute__((used, aligned(32768))) char emulator_room[32768];
extern "C" __attribute__((visibility("default"))) char* emulator_find_room() { return emulator_room; }

extern "C" char* emulator_dynamic_shared() { return dynamic_shared; }

#ifndef CHECKED
extern "C" void emulator_atomic(void*, int, void*) {}
#endif

// ---- what the checker asks

Where where() {
    unsigned t = current - threads;
    return {block, t, t / WARP, epoch, warp_epochs[t / WARP]};
}

uint3 block_index(unsigned b) {
    return {b % launch.grid.x, b / launch.grid.x % launch.grid.y, b / launch.grid.x / launch.grid.y};
}

uint3 thread_index(unsigned t) {
    return {t % launch.block.x, t / launch.block.x % launch.block.y, t / launch.block.x / launch.block.y};
}

bool on_a_stack(const char* address) { return address >= stacks && address < stacks + LIMIT * STACK; }

void stop(const Report& found) {  // from a fiber: it never goes on
    fail(found);
    switch_to(*current->fiber, scheduler);
    __builtin_unreachable();
}

}  // namespace emulator
