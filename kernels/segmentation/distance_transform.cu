// distance_transform.cu: exact squared Euclidean distance from every labelled pixel to the nearest pixel with another label.
//
//   squared(p) = min |p - q|^2 over pixels q with label(q) != label(p);  0 where label(p) = 0
//   With `outside`, every pixel beyond the image's border counts as such a q (the border itself is one pixel away);
//   without it, the image ends at its border. Where there is no q at all: FAR * FAR.
//
// Source   design.md, 'Distance': columns first, then along the row; Meijster, Roerdink, Hesselink (2000) for wide runs.
// Oracle   scipy.ndimage.distance_transform_edt of every label by itself (tests/segmentation/test_distance_transform.py)
// Launch   column_distance: one block per strip of STRIP columns; row_distance: a block per row. On a GPU a thread has a column, then a
//          pixel; the serial build takes rows together, and searches a run at once or by its lower envelope.
// Order    integers only; all searches of row_distance find the same minimum.
#include "jg/jg.cuh"

namespace {
constexpr int FAR = 32767;             // no other label in this column; 2 FAR^2 still fits 32 bits
constexpr int STRIP = 256;
constexpr int AHEAD = 32;               // rows that a column asks for at once
constexpr int WIDEST = 5120;           // pixels of a row that fit in shared memory (distance_transform.py: WIDEST)
constexpr int REACH = 40;              // beyond this many steps to either side the lower envelope is cheaper

#if defined(JG_SERIAL)
struct Row {
    int32_t square[WIDEST];            // the column distance, squared
    int16_t site[WIDEST], from[WIDEST];  // the envelope's parabolas and where each begins, a stack a run
};

// The first x at which the parabola of u lies below that of i < u.
JG_FN int takes_over(const int32_t* square, int i, int u) {
    const int64_t top = int64_t(u) * u - int64_t(i) * i + square[u] - square[i], bottom = 2 * (u - i);
    return int((top >= 0 ? top : top - bottom + 1) / bottom) + 1;
}
#endif
}  // namespace

// In   labels   int32  [B, H, W]
// Out  gap      uint16 [B, H, W]   steps up or down to the nearest other label in the same column; FAR: none
extern "C" __global__ void __launch_bounds__(256, 1) column_distance(
    const int32_t* __restrict__ labels, int32_t height, int32_t width, int32_t outside, uint16_t* __restrict__ gap)
{
    const int strips = (width + STRIP - 1) / STRIP, x0 = int(blockIdx.x) % strips * STRIP;
    const int n = jg::smaller(STRIP, width - x0), edge = outside ? 1 : FAR;
    const int64_t at = int64_t(int(blockIdx.x) / strips) * height * width + x0;
    const int32_t* __restrict__ label = labels + at;
    uint16_t* __restrict__ out = gap + at;
#if !defined(JG_SERIAL)
    JG_FOR(x, n) {                                       // few blocks, a chain a column: some rows are asked for before one is used
        int above = label[x], step = edge;
        out[x] = uint16_t(step);
        for (int y = 1; y < height; y += AHEAD) {
            int held[AHEAD];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) held[k] = label[int64_t(jg::smaller(y + k, height - 1)) * width + x];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) {
                if (y + k >= height) break;
                step = held[k] == above ? jg::smaller(FAR, step + 1) : 1;
                above = held[k];
                out[int64_t(y + k) * width + x] = uint16_t(step);
            }
        }
        int below = above;
        step = jg::smaller(step, edge);
        out[int64_t(height - 1) * width + x] = uint16_t(step);
        for (int y = height - 2; y >= 0; y -= AHEAD) {
            int held[AHEAD], known[AHEAD];
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) {
                const int64_t at_row = int64_t(jg::larger(y - k, 0)) * width + x;
                held[k] = label[at_row];
                known[k] = out[at_row];
            }
            JG_UNROLL for (int k = 0; k < AHEAD; ++k) {
                if (y - k < 0) break;
                step = jg::smaller(known[k], held[k] == below ? step + 1 : 1);
                below = held[k];
                out[int64_t(y - k) * width + x] = uint16_t(step);
            }
        }
    }
#else
    JG_FOR(x, n) out[x] = uint16_t(edge);
    for (int y = 1; y < height; ++y) {
        const int64_t row = int64_t(y) * width, above = row - width;
        JG_FOR(x, n) {                                   // a column stays with its thread: no barrier between rows
            const int step = jg::smaller(FAR, out[above + x] + 1);
            out[row + x] = uint16_t(label[row + x] == label[above + x] ? step : 1);
        }
    }
    const int64_t last = int64_t(height - 1) * width;
    JG_FOR(x, n) out[last + x] = uint16_t(jg::smaller(int(out[last + x]), edge));
    for (int y = height - 2; y >= 0; --y) {
        const int64_t row = int64_t(y) * width, below = row + width;
        JG_FOR(x, n) {
            const int step = label[row + x] == label[below + x] ? out[below + x] + 1 : 1;
            out[row + x] = uint16_t(jg::smaller(int(out[row + x]), step));
        }
    }
#endif
}
JG_REGISTER(column_distance)

// In   labels   int32  [B, H, W]
//      gap      uint16 [B, H, W]   of column_distance
// Out  squared  int32  [B, H, W]
extern "C" __global__ void __launch_bounds__(128, 8) row_distance(
    const int32_t* __restrict__ labels, const uint16_t* __restrict__ gap, int32_t width, int32_t outside,
    int32_t* __restrict__ squared)
{
    const int64_t at = int64_t(blockIdx.x) * width;
    const int32_t* __restrict__ label = labels + at;
    int32_t* __restrict__ out = squared + at;
#if !defined(JG_SERIAL)
    const uint16_t* __restrict__ column = gap + at;
    JG_FOR(x, width) {                                   // outward, as long as something nearer than what is known may stand there
        const int mine = label[x];
        int best = mine ? int(column[x]) * column[x] : 0;
        bool left = true, right = true;
        for (int j = 1; j * j < best && (left || right); ++j) {
            if (left) {
                left = x >= j && label[x - j] == mine;
                if (left) best = jg::smaller(best, int(column[x - j]) * column[x - j] + j * j);
                else if (outside || x >= j) best = jg::smaller(best, j * j);
            }
            if (right) {
                right = x + j < width && label[x + j] == mine;
                if (right) best = jg::smaller(best, int(column[x + j]) * column[x + j] + j * j);
                else if (outside || x + j < width) best = jg::smaller(best, j * j);
            }
        }
        out[x] = best;
    }
#else
    JG_SHARED(Row, s);
    JG_FOR(x, width) s.square[x] = int(gap[at + x]) * gap[at + x];
    __syncthreads();
    JG_FOR(first, width) {                               // the thread that meets a run's first pixel does the whole run
        const int mine = label[first];
        if (mine == 0) { out[first] = 0; continue; }
        if (first > 0 && label[first - 1] == mine) continue;
        int end = first + 1;
        while (end < width && label[end] == mine) ++end;
        const bool left = outside || first > 0, right = outside || end < width;
        int worst = 0;
        for (int x = first; x < end; ++x) {
            const int to_left = x - first + 1, to_right = end - x;
            int best = s.square[x];
            best = jg::smaller(best, left ? to_left * to_left : FAR * FAR);
            best = jg::smaller(best, right ? to_right * to_right : FAR * FAR);
            out[x] = best;
            worst = jg::larger(worst, best);
        }
        if (worst <= REACH * REACH || end - first <= REACH) {
            for (int j = 1; j * j < worst && j < end - first; ++j) {
                const int further = j * j;
                for (int x = first; x < end - j; ++x) out[x] = jg::smaller(out[x], s.square[x + j] + further);
                worst = 0;
                for (int x = first; x < first + j; ++x) worst = jg::larger(worst, out[x]);
                for (int x = first + j; x < end; ++x) {
                    out[x] = jg::smaller(out[x], s.square[x - j] + further);
                    worst = jg::larger(worst, out[x]);
                }
            }
            continue;
        }
        int top = first;                                 // the run's own part of the two stacks
        s.site[top] = int16_t(first);
        s.from[top] = int16_t(first);
        for (int u = first + 1; u < end; ++u) {
            while (top >= first && s.square[s.site[top]] + (s.from[top] - s.site[top]) * (s.from[top] - s.site[top])
                                       > s.square[u] + (s.from[top] - u) * (s.from[top] - u)) --top;
            if (top < first) {
                top = first;
                s.site[top] = int16_t(u);
                s.from[top] = int16_t(first);
            } else {
                const int x = takes_over(s.square, s.site[top], u);
                if (x < end) {
                    ++top;
                    s.site[top] = int16_t(u);
                    s.from[top] = int16_t(x);
                }
            }
        }
        for (int x = end - 1; x >= first; --x) {
            const int away = x - s.site[top];
            out[x] = jg::smaller(out[x], s.square[s.site[top]] + away * away);
            if (x == s.from[top]) --top;
        }
    }
#endif
}
JG_REGISTER(row_distance)
