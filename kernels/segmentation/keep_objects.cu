// keep_objects.cu: which objects are kept, and their numbers: 1..n in order, those that are not kept above n.
//
//   An object exists where it has pixels. It is not small where it does not touch the border (if that is asked for) and has the
//   smallest area; it is kept where it also has at most the largest area, and pixels after its holes were filled.
//
// Source   CellProfiler IdentifyPrimaryObjects and FilterObjects.
// Oracle   NumPy (tests/segmentation/test_keep_objects.py)
// Launch   a block per field, any block size; number_objects numbers with one warp.
// Order    integers; numbers follow the order of the labels.
//
// Labels are 1 .. n_labels of each field, which only the device knows; tables have `capacity` entries per field, and those past it are
// neither read nor written, but entry 0 is.
#include "jg/jg.cuh"

enum Verdict { EXISTS = 1, NOT_SMALL = 2, KEPT = 4 };
enum Ask { BORDER = 1, OTHER_BORDER = 2, SIZE = 4, FILLED = 8, ABSENT = 16 };   // label.py

struct Judged {
    const int32_t *area, *border, *other, *filled;     // of the field
    int32_t asked;
    float minimum, maximum;
};

JG_FN int verdict(const Judged& f, int label) {
    const int area = f.area[label];
    const bool exists = area > 0;
    bool not_small = exists && !((f.asked & BORDER) && f.border[label] > 0) && !((f.asked & OTHER_BORDER) && f.other[label] > 0);
    if (f.asked & SIZE) not_small = not_small && float(area) >= f.minimum;
    bool kept = not_small;
    if (f.asked & SIZE) kept = kept && float(area) <= f.maximum;
    if (f.asked & FILLED) kept = kept && f.filled[label] > 0;
    return (exists || (f.asked & ABSENT) ? EXISTS : 0) | (not_small ? NOT_SMALL : 0) | (kept ? KEPT : 0);
}

// In   n_labels   int64 [B]             the highest label of each field
//      area    int32 [B, capacity]   pixels
//      border  int32 [B, capacity]   above 0: touches the image's border
//      asked   what decides: 1 the border, 4 size between `minimum` and `maximum` pixels
// Out  alive   int32 [B, capacity]   the label itself where it is kept, else 0
extern "C" __global__ void __launch_bounds__(128, 8) keep_objects(
    const int64_t* __restrict__ n_labels, const int32_t* __restrict__ area, const int32_t* __restrict__ border, int32_t asked,
    float minimum, float maximum, int64_t capacity, int32_t* __restrict__ alive)
{
    const int64_t at = blockIdx.x * capacity;
    const Judged f = {area + at, border + at, border + at, area + at, asked, minimum, maximum};
    const int n = int(n_labels[blockIdx.x]);
    JG_FOR(label, n + 1) alive[at + label] = label && (verdict(f, label) & KEPT) ? label : 0;
}
JG_REGISTER(keep_objects)

// In   other   int32 [B, capacity]   above 0: touches the border in another image
//      filled  int32 [B, capacity]   pixels after holes were filled
//      asked   as above; 2 the other border, 8 pixels after filling, 16 labels without pixels are numbered too
// Out  number     int32 [B, capacity]   0 for what does not exist
//      kept       int32 [B, capacity]   number of kept ones, else 0
//      not_small  int32 [B, capacity]   number of those that are not small, else 0
//      counts     int32 [B]             n
extern "C" __global__ void __launch_bounds__(128, 8) number_objects(
    const int64_t* __restrict__ n_labels, const int32_t* __restrict__ area, const int32_t* __restrict__ border,
    const int32_t* __restrict__ other, const int32_t* __restrict__ filled, int32_t asked, float minimum, float maximum,
    int64_t capacity, int32_t* __restrict__ number, int32_t* __restrict__ kept, int32_t* __restrict__ not_small,
    int32_t* __restrict__ counts)
{
    const int64_t at = blockIdx.x * capacity;
    const Judged f = {area + at, border + at, other + at, filled + at, asked, minimum, maximum};
    const int labels = int(n_labels[blockIdx.x]);
    JG_FOR(label, labels + 1) number[at + label] = kept[at + label] = not_small[at + label] = 0;
    __syncthreads();
    if (jg::warp_id() != 0) return;
    const int n = jg::warp_pick(labels, [&](int i) { return (verdict(f, i + 1) & KEPT) != 0; }, [&](int i, int k) {
        number[at + i + 1] = kept[at + i + 1] = not_small[at + i + 1] = k + 1;
    });
    const auto left = [&](int i) { const int v = verdict(f, i + 1); return (v & EXISTS) && !(v & KEPT); };
    jg::warp_pick(labels, left, [&](int i, int k) {
        number[at + i + 1] = n + k + 1;
        if (verdict(f, i + 1) & NOT_SMALL) not_small[at + i + 1] = n + k + 1;
    });
    if (jg::lane() == 0) counts[blockIdx.x] = n;
}
JG_REGISTER(number_objects)
