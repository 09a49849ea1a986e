// outline.cu: what an object's outline says: counts for perimeter and Euler number, row extremes, edge pixels, moments.
//
//   A row of the object is read as words of 64 pixels, 60 of them new and two more on either side, and all is logic on words.
//   border    pixels of the object with a 4-neighbour that is not of it, the image's outside included. Of the border pixels
//             whose 3 x 3 square holds n4 border neighbours along the axes and nd along the diagonals
//             straight = {n4 2, 3; nd 0..2}    slanted = {(n4, nd) = (0, 2), (1, 3)}    half = {(n4, nd) = (1, 1), (1, 2)}
//   euler     8-connected objects less holes: over all 2 x 2 squares, (only the upper left pixel set)
//             - (upper right and lower left only) - (all but the lower right)
//   edge      pixels with a 4-neighbour in the image that has another label
//   moments   M[q][p] = sum (y - y0)^q (x - x0)^p over the object, p + q <= 9, y0 and x0 the floored middle of its box
//
// Source   scikit-image 0.18 perimeter (neighbourhood 4), euler_number (connectivity 2), find_boundaries (mode 'inner')
// Oracle   scikit-image, NumPy (tests/features/test_area_shape.py, test_intensity.py)
// Launch   one block per object row, any block size; one thread per row of the object. 12 KB of shared memory.
// Order    counts are integers. A line's power sums add its runs from left to right, a moment its lines from top to bottom.
//          Moments with p, q <= 3 are exact: sums of integers below 2^53 (boxes up to 1000 pixels wide; 2 ulp beyond).
#include "jg/jg.cuh"

constexpr int BAND = 60;        // lines of an object handled at a time
constexpr int STRIP = 60;       // columns of a word that are its own
constexpr int HALO = 2;
constexpr int AHEAD = 8;        // lines asked for before they are needed
constexpr int POWERS = 10;      // outline.py: POWERS
constexpr uint64_t OWN = ((uint64_t(1) << STRIP) - 1) << HALO;
constexpr int NO_PIXEL = 32767; // left end of a line without pixels; its right end is -1

struct Band {
    uint64_t word[BAND + 1 + 2 * HALO];   // the rows of a band, HALO before it and after it
    uint64_t edge[BAND + 1];
    int32_t edges_before[BAND + 2];
    int32_t left[BAND + 1], right[BAND + 1];
    double x[BAND + 1][POWERS], y[BAND + 1][POWERS];
};
struct Moments { double v[POWERS][POWERS]; };

// How many of a square's four neighbour words are set at each bit, as three binary digits.
struct Digits { uint64_t one, two, four; };
JG_FN Digits add_up(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    const uint64_t s = a ^ b, k = a & b, t = c ^ d, l = c & d, carry = s & t;
    return {s ^ t, k ^ l ^ carry, (k & l) | (k & carry) | (l & carry)};
}
JG_FN uint64_t shrunk(uint64_t above, uint64_t w, uint64_t below) { return w & (w << 1) & (w >> 1) & above & below; }

// In   first .. fourth  int32 [B, H, W]  labels of the compartments, in row order
//      field, number    int32 [N]
//      box         int32 [R, 4]      half-open y0, x0, y1, x1
//      line_start  int64 [R + 1]     each row's first line
//      start       int64 [R]         each row's first listed pixel
//      schedule    int32 [R]
//      powers      float64 [T, 10]   entry half + t, power p: the sum of s^p over 0 <= s < t, negative of t <= s < 0
// Out  counts      int32 [R, 5]      straight, slanted, half, euler, edge pixels
//      extent      int32 [L, 2]      first and last column of each line; 32767, -1 where it has no pixel
//      moments     float64 [R, 10, 10]  M[q][p]; 0 where p + q > 9
//      edge        int32 [compartments, P]  y << 16 | x of a row's edge pixels, from its first listed pixel on
extern "C" __global__ void __launch_bounds__(128, 8) trace_outlines(
    const int32_t* __restrict__ first, const int32_t* __restrict__ second, const int32_t* __restrict__ third,
    const int32_t* __restrict__ fourth, const int32_t* __restrict__ field, const int32_t* __restrict__ number,
    const int32_t* __restrict__ box, const int64_t* __restrict__ line_start, const int64_t* __restrict__ start,
    const int32_t* __restrict__ schedule, const double* __restrict__ powers, int32_t half, int32_t cells, int64_t n_pixels,
    int32_t height, int32_t width, int32_t* __restrict__ counts, int32_t* __restrict__ extent,
    double* __restrict__ moments, int32_t* __restrict__ edge)
{
    JG_SHARED(Band, s);
    JG_SHARED(Moments, m);
    JG_SHARED(jg::CountScratch<5>, totals);
    const int row = schedule[blockIdx.x], k = row / cells, cell = row % cells, n = number[cell];
    const int32_t* __restrict__ label = (k == 0 ? first : k == 1 ? second : k == 2 ? third : fourth)
                                        + int64_t(field[cell]) * height * width;
    const int y0 = box[row * 4], x0 = box[row * 4 + 1], y1 = box[row * 4 + 2], x1 = box[row * 4 + 3];
    const int middle_y = (y0 + y1) >> 1, middle_x = (x0 + x1) >> 1;
    const double* __restrict__ table = powers + int64_t(half - middle_x) * POWERS;
    int32_t* __restrict__ edge_list = edge + k * n_pixels + start[row];
    int edges = 0;
    jg::Counts<5> mine = {};
    JG_FOR_YX(q, p, 0, POWERS, 0, POWERS) m.v[q][p] = 0;

    for (int band = y0; band <= y1 && y1 > y0; band += BAND) {        // the line y1 has no pixels but squares that end in it
        const int lines = jg::smaller(BAND, y1 + 1 - band);
        JG_FOR(r, lines) {
            s.left[r] = NO_PIXEL;
            s.right[r] = -1;
            double power = 1;
            for (int p = 0; p < POWERS; ++p) {
                s.x[r][p] = 0;
                s.y[r][p] = power;
                power *= band + r - middle_y;
            }
        }
        for (int strip = x0; strip <= x1; strip += STRIP) {           // likewise the column x1
            const int from = strip - HALO;                            // column of bit 0
            JG_FOR(r, lines + 2 * HALO) {
                const int y = band + r - HALO, a = jg::larger(from, x0), b = jg::smaller(from + 64, x1);
                uint64_t w = 0;
                if (y >= y0 && y < y1) {
                    const int32_t* __restrict__ at = label + int64_t(y) * width;
                    if (y + AHEAD < y1 && b > a) jg::fetch_ahead(at + int64_t(AHEAD) * width + a, b - a);
                    for (int x = a; x < b; ++x) w |= uint64_t(at[x] == n) << (x - from);
                }
                s.word[r] = w;
            }
            __syncthreads();
            JG_FOR(r, lines) {
                const int y = band + r;
                const uint64_t w = s.word[r + 2], above = s.word[r + 1], below = s.word[r + 3];
                const uint64_t rim = w & ~shrunk(above, w, below);
                const uint64_t rim_above = above & ~shrunk(s.word[r], above, w), rim_below = below & ~shrunk(w, below, s.word[r + 4]);
                const Digits axial = add_up(rim_above, rim_below, rim << 1, rim >> 1);
                const Digits slant = add_up(rim_above << 1, rim_above >> 1, rim_below << 1, rim_below >> 1);
                const uint64_t own = rim & OWN, none = ~axial.one & ~axial.two & ~axial.four, one = axial.one & ~axial.two;
                const uint64_t three = slant.one & slant.two, two = slant.two & ~slant.one, any = slant.one | slant.two;
                mine.v[0] += jg::count_bits(own & axial.two & ~three & ~slant.four);
                mine.v[1] += jg::count_bits(own & ((none & two) | (one & three)));
                mine.v[2] += jg::count_bits(own & one & any & ~three);
                const uint64_t left = w << 1, corner = above << 1;
                mine.v[3] += jg::count_bits(OWN & corner & ~above & ~left & ~w);
                mine.v[3] -= jg::count_bits(OWN & ~corner & above & left & ~w) + jg::count_bits(OWN & corner & above & left & ~w);

                const uint64_t before_first = from <= 0 ? uint64_t(1) << -from : 0;        // column 0
                const int last = width - 1 - from;
                const uint64_t after_last = last < 64 ? uint64_t(1) << last : 0;
                const uint64_t inside = ((w << 1) | before_first) & ((w >> 1) | after_last)
                                        & (y == 0 ? ~uint64_t(0) : above) & (y == height - 1 ? ~uint64_t(0) : below);
                s.edge[r] = w & ~inside & OWN;
                const uint64_t pixels = w & OWN;
                if (pixels) {
                    s.left[r] = jg::smaller(s.left[r], from + jg::lowest_bit(pixels));
                    s.right[r] = from + jg::highest_bit(pixels);
                }
                uint64_t begin = pixels & ~(pixels << 1), end = pixels & ~(pixels >> 1);
                for (; begin; begin &= begin - 1, end &= end - 1) {
                    const double* __restrict__ less = table + int64_t(from + jg::lowest_bit(begin)) * POWERS;
                    const double* __restrict__ more = table + int64_t(from + jg::lowest_bit(end) + 1) * POWERS;
                    for (int p = 0; p < POWERS; ++p) s.x[r][p] += more[p] - less[p];
                }
            }
            __syncthreads();
            JG_ONCE {
                s.edges_before[0] = edges;
                for (int r = 0; r < lines; ++r) s.edges_before[r + 1] = s.edges_before[r] + jg::count_bits(s.edge[r]);
            }
            __syncthreads();
            JG_FOR(r, lines) {
                int32_t* __restrict__ to = edge_list + s.edges_before[r];
                for (uint64_t left = s.edge[r]; left; left &= left - 1) *to++ = (band + r) << 16 | (from + jg::lowest_bit(left));
            }
            edges = s.edges_before[lines];
            __syncthreads();
        }
        JG_FOR(r, jg::smaller(lines, y1 - band)) {
            const int64_t line = line_start[row] + band + r - y0;
            extent[line * 2] = s.left[r];
            extent[line * 2 + 1] = s.right[r];
        }
        for (int r = 0; r < lines; ++r)
            JG_FOR_YX(q, p, 0, POWERS, 0, POWERS - q) m.v[q][p] += s.y[r][q] * s.x[r][p];
        __syncthreads();
    }
    const jg::Counts<5> total = jg::block_count<5>(mine, totals);
    JG_ONCE {
        for (int c = 0; c < 4; ++c) counts[row * 5 + c] = int32_t(int64_t(total.v[c]));
        counts[row * 5 + 4] = edges;
    }
    JG_FOR_YX(q, p, 0, POWERS, 0, POWERS) moments[int64_t(row) * POWERS * POWERS + q * POWERS + p] = m.v[q][p];
}
JG_REGISTER(trace_outlines)
