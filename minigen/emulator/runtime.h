// What the emulator's parts share: the kernel as it is compiled (device.h), the blocks and threads (runtime.cpp), the checker
// (checker.cpp), and Python (program.py, which mirrors the structs). Start at runtime.cpp.

#pragma once

struct uint3 {
    unsigned x, y, z;
};

namespace emulator {  // so that a kernel may have names of its own

struct Place {  // in the text of a kernel
    const char* file;
    int line;
};

struct Range {  // of memory: an argument's array, or a variable in shared memory
    char *begin, *end;
};

struct Launch {
    uint3 grid, block;
    int schedule;         // 0 forward, 1 backward, 2 shuffled
    unsigned seed;        // of the shuffle
    int dynamic;          // bytes of dynamic shared memory
    int measure;          // whether to count sectors and bank conflicts
    int array_count, variable_count;
    const Range *arrays, *variables;
};

enum Failure { NOTHING, DIVERGENCE, DEADLOCK, RACE, BOUNDS, MISALIGNED, UNINITIALISED, BAD_LANE };

struct Party {  // a thread that took part in what failed
    uint3 block, thread;
    void* pc;           // in its memory access, or null
    Place place;        // of its barrier or shuffle, or of nothing
    int write, atomic;  // what kind of access
};

struct Report {
    int failure;
    int waiting, threads;  // DIVERGENCE: how many of how many threads have arrived
    Party one, other;
    int region;   // which argument's array (0, 1, ...), or variable in shared memory (-1, -2, ...; beyond the last: dynamic)
    long offset;  // of the access in the region, in bytes
    int size;     // of the access, in bytes
};

struct Traffic {  // of one memory instruction; a request is what the threads of a warp ask for at the same time
    void* pc;
    int shared, write, size;
    long requests, sectors, ideal_sectors, wavefronts, ideal_wavefronts;
};

typedef void (*Entry)(void** arguments);

}  // namespace emulator

// ---- what device.h calls

extern "C" {
extern const uint3 threadIdx, blockIdx, blockDim, gridDim;
void emulator_barrier(emulator::Place place);
// All lanes of `mask` meet, each with a value. Returns the values of all 32 lanes, to be read at once.
const unsigned long long* emulator_meet(unsigned mask, unsigned long long value, emulator::Place place);
void emulator_bad_lane(int lane, emulator::Place place);
void emulator_atomic(void* address, int size, void* pc);
char* emulator_dynamic_shared();
}

// ---- what runtime.cpp and checker.cpp tell each other

namespace emulator {

struct Where {  // the thread that is running
    unsigned block, thread, warp, epoch, warp_epoch;  // an epoch ends at a barrier of the block, or of the warp
};

Where where();
uint3 block_index(unsigned block);
uint3 thread_index(unsigned thread);
bool on_a_stack(const char* address);
[[noreturn]] void stop(const Report& report);

void check_launch(const Launch& launch, char* dynamic);
void check_block();
void measure_block();

}  // namespace emulator
