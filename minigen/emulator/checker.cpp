// Looks at every memory access of a kernel before it happens. Start at `check`.
//
// The kernel is compiled with -fsanitize=thread, which makes the compiler put a call before each access; these calls come here
// instead of to ThreadSanitizer. An access has to lie in an array that the kernel was given, or in a shared variable; shared
// memory must have been written before it is read; and two accesses of one place, one of them a write, need an order: a barrier
// of their block, or of their warp, between them. Nothing orders the blocks of a launch.

#include <string.h>

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "runtime.h"

namespace emulator {

static const int CELL = 4;  // bytes that share a record; an access of less marks its bytes in `bytes`

struct Access {
    unsigned block, thread, warp, epoch, warp_epoch;
    unsigned char bytes, atomic;  // bytes: 0 for no access
    void* pc;
};

struct Cell {
    Access write, other_write, read, other_read;  // the last ones; the two of a kind are by different threads
    unsigned long life;                           // of which launch, or block, they are; anything before is forgotten
};

struct Region {
    Range range;
    bool shared;
    int number;  // as in Report
    size_t first;  // of its cells
};

static Launch launch;
static std::vector<Region> regions;
static std::vector<Cell> cells;  // of all regions; kept from launch to launch, since to clear them takes long
static Region* last;             // where the last access was
static unsigned long lives, launch_life, block_life;

// The linker's names for where the library, with its constants, begins and ends.
extern "C" char __ehdr_start[] __attribute__((visibility("hidden"))), _end[] __attribute__((visibility("hidden")));

void check_launch(const Launch& wanted, char* dynamic) {
    launch = wanted;
    regions.clear();
    size_t count = 0;
    auto add = [&count](Range range, bool shared, int number) {
        regions.push_back({range, shared, number, count});
        count += (range.end - range.begin + CELL - 1) / CELL;
    };
    for (int i = 0; i < launch.array_count; i++) add(launch.arrays[i], false, i);
    for (int i = 0; i < launch.variable_count; i++) add(launch.variables[i], true, -1 - i);
    add({dynamic, dynamic + launch.dynamic}, true, -1 - launch.variable_count);
    if (cells.size() < count) cells.resize(count);
    last = &regions[0];
    launch_life = ++lives;
}

void check_block() { block_life = ++lives; }  // shared memory belongs to a block

static Cell& cell_of(const Region& region, long i) {
    Cell& cell = cells[region.first + i];
    unsigned long life = region.shared ? block_life : launch_life;
    if (cell.life != life) {
        cell = {};
        cell.life = life;
    }
    return cell;
}

static Region* find(const char* address) {
    if (address >= last->range.begin && address < last->range.end) return last;
    for (Region& region : regions)
        if (address >= region.range.begin && address < region.range.end) return last = &region;
    return nullptr;
}

// ---- races

static bool ordered(const Access& before, const Access& now) {
    if (before.block != now.block) return false;
    if (before.thread == now.thread || before.epoch != now.epoch) return true;
    return before.warp == now.warp && before.warp_epoch != now.warp_epoch;
}

static bool conflict(const Access& before, const Access& now) {
    return (before.bytes & now.bytes) && !(before.atomic && now.atomic) && !ordered(before, now);
}

static Party party(const Access& access, bool write) {
    return {block_index(access.block), thread_index(access.thread), access.pc, {}, write, access.atomic};
}

[[noreturn]] static void fail(Failure failure, const Region& region, const char* address, int size, const Access& now, bool write) {
    Report found = {};
    found.failure = failure;
    found.other = party(now, write);
    found.region = region.number;
    found.offset = address - region.range.begin;
    found.size = size;
    stop(found);
}

// The earlier access that this one disturbs, or null; and remember this one.
static const Access* touch(Cell& cell, const Access& now, bool write) {
    const Access* before[] = {&cell.write, &cell.other_write, &cell.read, &cell.other_read};
    for (int i = 0; i < (write ? 4 : 2); i++)  // reads do not disturb each other
        if (conflict(*before[i], now)) return before[i];
    Access &last = write ? cell.write : cell.read, &other = write ? cell.other_write : cell.other_read;
    if (last.thread != now.thread || last.block != now.block) other = last;
    last = now;
    return nullptr;
}

// ---- sectors and banks

struct Ask {  // one thread's part of a request: the n-th time that it comes to this instruction
    void* pc;
    unsigned warp, turn, lane;
    unsigned long address;
    int size;
    bool shared, write;
};

static std::vector<Ask> asks;  // of this block
static std::unordered_map<void*, std::vector<unsigned>> turns;  // by instruction, of each thread
static std::vector<Traffic> traffic;

static void note(const char* address, int size, bool write, bool shared, void* pc, const Where& here) {
    std::vector<unsigned>& counters = turns[pc];
    counters.resize(1024);
    asks.push_back({pc, here.warp, counters[here.thread]++, here.thread % 32, (unsigned long)address, size, shared, write});
}

static Traffic& traffic_of(const Ask& ask) {
    for (Traffic& t : traffic)
        if (t.pc == ask.pc && t.shared == ask.shared) return t;
    traffic.push_back({ask.pc, ask.shared, ask.write, ask.size, 0, 0, 0, 0, 0});
    return traffic.back();
}

static int distinct(std::vector<unsigned long>& numbers) {
    std::sort(numbers.begin(), numbers.end());
    return std::unique(numbers.begin(), numbers.end()) - numbers.begin();
}

// Global memory comes in sectors of 32 bytes. Shared memory has 32 banks, 4 bytes wide: words of one bank, unless they are the
// same word, wait for each other. Wide accesses are made by half of a warp, or a quarter, at a time.
static void add_request(const Ask* begin, const Ask* end) {
    Traffic& t = traffic_of(*begin);
    std::vector<unsigned long> units, words;
    t.requests++;
    for (const Ask* a = begin; a < end; a++) {
        for (unsigned long u = a->address / 32; u <= (a->address + a->size - 1) / 32; u++) units.push_back(u);
        for (unsigned long w = a->address / 4; w <= (a->address + a->size - 1) / 4; w++) words.push_back(w);
    }
    if (!t.shared) {
        t.sectors += distinct(units);
        t.ideal_sectors += (distinct(words) * 4 + 31) / 32;
        return;
    }
    int together = 32 / std::max(1, begin->size / 4);
    for (const Ask* a = begin; a < end; a += together) {
        std::vector<unsigned long> banks[32];
        int deepest = 0;
        for (const Ask* b = a; b < std::min(a + together, end); b++)
            for (unsigned long w = b->address / 4; w <= (b->address + b->size - 1) / 4; w++) banks[w % 32].push_back(w);
        for (auto& bank : banks) deepest = std::max(deepest, distinct(bank));
        t.wavefronts += deepest;
        t.ideal_wavefronts++;
    }
}

void measure_block() {
    std::sort(asks.begin(), asks.end(), [](const Ask& a, const Ask& b) {
        return std::tie(a.pc, a.shared, a.warp, a.turn, a.lane) < std::tie(b.pc, b.shared, b.warp, b.turn, b.lane);
    });
    for (size_t begin = 0, end; begin < asks.size(); begin = end) {
        const Ask& first = asks[begin];
        for (end = begin + 1; end < asks.size(); end++) {
            const Ask& a = asks[end];
            if (a.pc != first.pc || a.shared != first.shared || a.warp != first.warp || a.turn != first.turn) break;
        }
        add_request(&asks[begin], &asks[0] + end);
    }
    asks.clear();
    turns.clear();
}

extern "C" __attribute__((visibility("default"))) int emulator_traffic(Traffic* out, int room) {
    int n = std::min<int>(room, traffic.size());
    std::copy(traffic.begin(), traffic.begin() + n, out);
    traffic.clear();
    return n;
}

// ---- every access

static const Region& nearest(const char* address) {  // the region that an access has left
    auto gap = [&](const Region& r) { return address < r.range.begin ? r.range.begin - address : address - r.range.end; };
    const Region* near = nullptr;
    for (const Region& r : regions)
        if (r.range.end > r.range.begin && (!near || gap(r) < gap(*near))) near = &r;
    return near ? *near : regions[0];
}

static void check(const char* address, int size, bool write, bool atomic, void* pc) {
    if (on_a_stack(address)) return;  // a thread's own variables
    Region* region = find(address);
    if (!region && address >= __ehdr_start && address < _end) return;  // constants of the text
    Where here = where();
    Access now = {here.block, here.thread, here.warp, here.epoch, here.warp_epoch, 0xf, atomic, pc};
    if (!region) fail(BOUNDS, nearest(address), address, size, now, write);
    if (address + size > region->range.end) fail(BOUNDS, *region, address, size, now, write);
    long offset = address - region->range.begin;
    if (offset % size) fail(MISALIGNED, *region, address, size, now, write);
    if (size < CELL) now.bytes = ((1 << size) - 1) << offset % CELL;
    for (long i = offset / CELL; i <= (offset + size - 1) / CELL; i++) {
        Cell& cell = cell_of(*region, i);
        if (region->shared && !cell.write.bytes && (!write || atomic)) fail(UNINITIALISED, *region, address, size, now, write);
        if (const Access* other = touch(cell, now, write)) {
            Report found = {};
            found.failure = RACE;
            found.one = party(*other, other == &cell.write || other == &cell.other_write);
            found.other = party(now, write);
            found.region = region->number;
            found.offset = offset;
            found.size = size;
            stop(found);
        }
    }
    if (launch.measure) note(address, size, write, region->shared, pc, here);
}

extern "C" void emulator_atomic(void* address, int size, void* pc) { check((char*)address, size, true, true, pc); }

// What the compiler calls, with the address of the call as the place in the kernel.
#define HOOK extern "C" void
#define PC __builtin_return_address(0)
#define ACCESS(n) \
    HOOK __tsan_read##n(void* a) { check((char*)a, n, false, false, PC); } \
    HOOK __tsan_write##n(void* a) { check((char*)a, n, true, false, PC); } \
    HOOK __tsan_unaligned_read##n(void* a) { check((char*)a, n, false, false, PC); } \
    HOOK __tsan_unaligned_write##n(void* a) { check((char*)a, n, true, false, PC); } \
    HOOK __tsan_volatile_read##n(void* a) { check((char*)a, n, false, false, PC); } \
    HOOK __tsan_volatile_write##n(void* a) { check((char*)a, n, true, false, PC); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

static void check_range(char* address, long size, bool write, void* pc) {
    for (long i = 0; i < size; i += CELL) check(address + i, (int)std::min<long>(CELL, size - i), write, false, pc);
}
HOOK __tsan_read_range(void* a, long size) { check_range((char*)a, size, false, PC); }
HOOK __tsan_write_range(void* a, long size) { check_range((char*)a, size, true, PC); }
extern "C" void* __tsan_memcpy(void* to, const void* from, unsigned long size) {
    check_range((char*)from, size, false, PC);
    check_range((char*)to, size, true, PC);
    return memcpy(to, from, size);
}
extern "C" void* __tsan_memset(void* to, int value, unsigned long size) {
    check_range((char*)to, size, true, PC);
    return memset(to, value, size);
}
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
HOOK __tsan_init() {}

}  // namespace emulator
