// quicksort.cu: counts in the order in which NumPy before 1.25 puts them, equals among them too.
//
//   order_by_quicksort   places of counts, the smallest first. Its order among equals decides which levels centrosome's medians merge, and
//                        which of an object's brightest pixels CellProfiler names.
//
// Introsort: the middle of three as pivot, the larger part first on the stack, 16 and fewer by insertion, and by a heap from a
// depth of twice the logarithm on.
//
// Source   NumPy 1.23 argsort; centrosome rank_order, median_filter; CellProfiler Smooth, MeasureObjectIntensity.
// Oracle   CellProfiler's medians (tests/steps/modules), a twin in Python (tests/segmentation/test_ranks.py)
// Launch   a block per row, of which one thread works. Any block size.
// Order    the sort's.
#include "jg/jg.cuh"

namespace {
constexpr int FEW = 16, WAITING = 160;   // ranks.py: WAITING

JG_FN void swap(int32_t* order, int a, int b) {
    const int32_t held = order[a];
    order[a] = order[b];
    order[b] = held;
}

// The entry `moved` goes down from `at` (from 1 on) in a heap of n, whose parents are not smaller.
JG_FN void sift(const int32_t* v, int32_t* heap, int n, int at, int32_t moved) {
    for (int child = 2 * at; child <= n; child *= 2) {
        if (child < n && v[heap[child - 1]] < v[heap[child]]) ++child;
        if (!(v[moved] < v[heap[child - 1]])) break;
        heap[at - 1] = heap[child - 1];
        at = child;
    }
    heap[at - 1] = moved;
}

JG_FN void by_heap(const int32_t* v, int32_t* heap, int n) {
    for (int at = n / 2; at > 0; --at) sift(v, heap, n, at, heap[at - 1]);
    while (n > 1) {
        const int32_t moved = heap[n - 1];
        heap[n - 1] = heap[0];
        sift(v, heap, --n, 1, moved);
    }
}

JG_FN void by_insertion(const int32_t* v, int32_t* order, int first, int last) {
    for (int i = first + 1; i <= last; ++i) {
        const int32_t moved = order[i];
        int to = i;
        for (; to > first && v[moved] < v[order[to - 1]]; --to) order[to] = order[to - 1];
        order[to] = moved;
    }
}

// Where the pivot of first .. last ends up.
JG_FN int partition(const int32_t* v, int32_t* order, int first, int last) {
    const int middle = first + (last - first) / 2;
    if (v[order[middle]] < v[order[first]]) swap(order, middle, first);
    if (v[order[last]] < v[order[middle]]) swap(order, last, middle);
    if (v[order[middle]] < v[order[first]]) swap(order, middle, first);
    const int32_t pivot = v[order[middle]];
    int up = first, down = last - 1;
    swap(order, middle, down);
    for (;;) {
        do ++up; while (v[order[up]] < pivot);
        do --down; while (pivot < v[order[down]]);
        if (up >= down) break;
        swap(order, up, down);
    }
    swap(order, up, last - 1);
    return up;
}
}  // namespace

// In   value   int32 [B, N]
//      wanted  int32 [M]   rising: values whose places are wanted; parts without any stay as they are. M 0: all are wanted
// Out  order   int32 [B, N]
//      stack   int32 [B, 160]   scratch: first, last and depth of the parts that wait, and which of `wanted` they may have; a part for
//              each halving at most
extern "C" __global__ void __launch_bounds__(128, 8) order_by_quicksort(
    const int32_t* __restrict__ value, const int32_t* __restrict__ wanted, int32_t n, int32_t n_wanted,
    int32_t* __restrict__ order, int32_t* __restrict__ stack)
{
    const int32_t* v = value + int64_t(blockIdx.x) * n;
    int32_t* o = order + int64_t(blockIdx.x) * n;
    int32_t* waiting = stack + int64_t(blockIdx.x) * WAITING;
    JG_FOR(i, n) o[i] = i;
    __syncthreads();
    JG_ONCE {
        int first = 0, last = n - 1, depth = 0, waits = 0, from = 0, to = n_wanted ? n_wanted : 1;
        for (int m = n; m > 1; m /= 2) depth += 2;
        for (;;) {
            if (depth < 0) {
                if (from < to) by_heap(v, o + first, last - first + 1);
            } else {
                while (last - first >= FEW && from < to) {
                    const int at = partition(v, o, first, last), low = at - first < last - at, pivot = v[o[at]];
                    int below = to, above = from;        // wanted ones from `above` on are not below the pivot, nor those before `below` above
                    if (n_wanted) {
                        while (below > from && wanted[below - 1] > pivot) --below;
                        while (above < to && wanted[above] < pivot) ++above;
                    }
                    --depth;
                    const int parts[2][4] = {{first, at - 1, from, below}, {at + 1, last, above, to}};
                    for (int k = 0; k < 4; ++k) waiting[5 * waits + k] = parts[low][k];
                    waiting[5 * waits++ + 4] = depth;
                    first = parts[!low][0];
                    last = parts[!low][1];
                    from = parts[!low][2];
                    to = parts[!low][3];
                }
                if (from < to) by_insertion(v, o, first, last);
            }
            if (waits == 0) break;
            const int32_t* next = waiting + 5 * --waits;
            first = next[0];
            last = next[1];
            from = next[2];
            to = next[3];
            depth = next[4];
        }
    }
}
JG_REGISTER(order_by_quicksort)
