// area_shape.cu: convex hull, Feret diameters, enclosing circle, convex area, and the measures made of them.
//
//   hull      vertices of the convex hull of the pixel centres, none on a line between others; clockwise on the screen,
//             from the topmost of the leftmost ones
//   Feret     largest distance of two vertices; smallest distance of two parallel lines that enclose them
//   circle    the smallest one around all vertices (Chrystal's method, its tests in exact integers, ties as centrosome rounds)
//   convex    pixels whose centre lies in or on the hull of the pixels' edge midpoints
//
// Source   scikit-image 0.18 regionprops, centrosome 1.2 feret_diameter and minimum_enclosing_circle, as CellProfiler 4.2.8
//          MeasureObjectSizeShape uses them
// Oracle   scikit-image, centrosome (tests/features/test_area_shape.py); CellProfiler's own output on the real fields
// Launch   trace_hulls: one block per object row: a thread a side of the hull, then one warp per measure. measure_shapes: a thread an
//          object row.
// Order    integers, but for quotients and roots of single numbers.
#include "jg/one_item_per_thread.cuh"
#include "jg/jg_math.cuh"

constexpr int64_t NOTHING = int64_t(1) << 40;     // the extreme of a line without pixels
constexpr int MOMENTS = 100, HULL = 6;

struct Shape { enum Measure {           // the columns; ConvexArea is off by default
    Area, BoundingBoxArea, BoundingBoxMaximum_X, BoundingBoxMaximum_Y, BoundingBoxMinimum_X, BoundingBoxMinimum_Y, Center_X,
    Center_Y, Compactness, Eccentricity, EquivalentDiameter, EulerNumber, Extent, FormFactor, MajorAxisLength,
    MaxFeretDiameter, MaximumRadius, MeanRadius, MedianRadius, MinFeretDiameter, MinorAxisLength, Orientation, Perimeter,
    Solidity, ConvexArea, COUNT
}; };

struct Point { int64_t y, x; };

// The vertices of the lower convex hull of points at(0) .. at(n - 1) of rising x, those on a line between others left out; what lies
// at y NOTHING is no point. `vertex` takes their numbers.
template <class At, class Stack> JG_FN int lower_hull(int n, At at, Stack vertex) {
    int count = 0;
    Point a = {0, 0}, b = {0, 0};                      // the last two of the hull so far
    for (int i = 0; i < n; ++i) {
        const Point p = at(i);
        if (p.y == NOTHING) continue;
        while (count >= 2 && (b.y - a.y) * (p.x - a.x) >= (p.y - a.y) * (b.x - a.x)) {
            --count;
            b = a;
            if (count >= 2) a = at(vertex.get(count - 2));
        }
        vertex.put(count++, i);
        a = b;
        b = p;
    }
    return count;
}
JG_FN int64_t ceil_of(int64_t top, int64_t bottom) { return top >= 0 ? (top + bottom - 1) / bottom : -(-top / bottom); }

JG_FN int64_t dot(Point a, Point b) { return a.y * b.y + a.x * b.x; }
JG_FN int64_t cross(Point a, Point b) { return a.x * b.y - a.y * b.x; }
JG_FN Point operator-(Point a, Point b) { return {a.y - b.y, a.x - b.x}; }
struct Circle { double y, x, radius; };


// ---------------------------------------------------------------- measures of a hull's vertices, v(0) .. v(n - 1)

template <class V> JG_FN double max_feret(int n, V v) {
    int64_t best = 0;                                  // by one warp, in lane 0
    for (int i = jg::lane(); i < n; i += jg::WARP)
        for (int j = i + 1; j < n; ++j) best = jg::larger(best, dot(v(j) - v(i), v(j) - v(i)));
    return sqrt(double(jg::warp_max(best)));
}

template <class V> JG_FN double min_feret(int n, V v) {
    if (n < 3) return 0;
    double best = 0;
    for (int i = 0, j = 1; i < n; ++i) {
        const Point from = v(i), side = v((i + 1) % n) - from;
        int64_t away = cross(side, v(j) - from);
        for (;;) {                                     // the vertex farthest from this side: it only moves on
            const int64_t next = cross(side, v((j + 1) % n) - from);
            if (next <= away) break;
            away = next;
            j = (j + 1) % n;
        }
        const double squared = double(away) * double(away) / double(dot(side, side));
        best = i ? jg::smaller(best, squared) : squared;
    }
    return sqrt(best);
}

// The angle at which p sees a and b, rounded as centrosome rounds it: from the cosines at a and b.
JG_FN double rounded_angle(Point a, Point b, Point p) {
    const double side = double(dot(a - b, a - b));
    double left = jg::PI;
    for (int end = 0; end < 2; ++end) {
        const Point from = end ? a : b, to = end ? b : a;
        const double cosine = double(dot(to - from, p - from)) / sqrt(side * double(dot(p - from, p - from)));
        left -= jg::acos_nearest(cosine);
    }
    return left;
}

// From a side: the vertex that sees it at the smallest angle makes, with it, the circle, or replaces one of its ends.
template <class V> JG_FN Circle enclosing_circle(int n, V v) {
    if (n == 0) return {0, 0, 0};
    Point a = v(0), b = v(n > 1 ? 1 : 0), c = b;
    const auto midway = [&] {
        const double y = double(a.y + b.y) / 2, x = double(a.x + b.x) / 2, dy = a.y - y, dx = a.x - x;
        return Circle{y, x, sqrt(dy * dy + dx * dx)};
    };
    for (int round = 0; n > 2 && round < 4 * n + 16; ++round) {
        int64_t top = 0, bottom = 0;                   // cotangent of the smallest angle
        for (int i = 0; i < n; ++i) {
            const Point p = v(i), to_a = a - p, to_b = b - p;
            const int64_t cosine = dot(to_a, to_b);
            int64_t sine = cross(to_a, to_b);
            if (sine < 0) sine = -sine;
            if (sine == 0) continue;                   // a and b themselves: no three vertices are on a line
            const double ahead = double(cosine) * double(bottom) - double(top) * double(sine);
            // Of vertices on one circle the choice decides the radius' last bit, and that, whether a vertex counts in zernike.cu.
            if (bottom == 0 || ahead > 0 || (ahead == 0 && rounded_angle(a, b, p) < rounded_angle(a, b, c))) {
                top = cosine;
                bottom = sine;
                c = p;
            }
        }
        if (top <= 0) return midway();
        if (dot(b - a, c - a) < 0) a = c;
        else if (dot(a - b, c - b) < 0) b = c;
        else {
            const int64_t aa = dot(a, a), bb = dot(b, b), cc = dot(c, c);
            const double d = double(2 * (a.x * (b.y - c.y) + b.x * (c.y - a.y) + c.x * (a.y - b.y)));
            const double x = double(aa * (b.y - c.y) + bb * (c.y - a.y) + cc * (a.y - b.y)) / d;
            const double y = double(aa * (c.x - b.x) + bb * (a.x - c.x) + cc * (b.x - a.x)) / d;
            const double dy = a.y - y, dx = a.x - x;
            return {y, x, sqrt(dy * dy + dx * dx)};
        }
    }
    return midway();
}

#if defined(JG_SERIAL)
constexpr int LINES = 0, POINTS = 0;                   // what a processor's cache has, it need not copy
#else
constexpr int LINES = 384, POINTS = 192;               // lines of an object, and vertices, that shared memory holds
#endif
struct Hull {
    int32_t count[4], start, points;
    int32_t ends[2 * LINES + 2], point[2 * POINTS + 2];
    int16_t vertex[2][LINES + 2], corner[2][LINES + 2];
};

// Numbers of vertices: in shared memory where they fit, else in the scratch.
struct Stack {
    int16_t* near;
    int32_t* far;
    bool fits;
    __device__ __forceinline__ int get(int i) const { return fits ? int(near[i]) : far[i]; }
    __device__ __forceinline__ void put(int i, int v) const {
        if (fits) near[i] = int16_t(v);
        else far[i] = v;
    }
};

// In   box         int32 [R, 4]
//      line_start  int64 [R + 1]
//      extent      int32 [L, 2]         first and last column of each line (outline.cu)
//      schedule    int32 [R]
// Out  scratch     int32 [6 L + 2 R]
//      vertex      int32 [2 L, 2]       y, x of each row's vertices, from twice its first line on
//      vertices    int32 [R]            how many
//      hull        float64 [R, HULL]    largest and smallest Feret diameter; circle y, x, radius; convex area
extern "C" __global__ void __launch_bounds__(128, 4) trace_hulls(
    const int32_t* __restrict__ box, const int64_t* __restrict__ line_start, const int32_t* __restrict__ extent,
    const int32_t* __restrict__ schedule, int32_t* __restrict__ scratch, int32_t* __restrict__ vertex,
    int32_t* __restrict__ vertices, double* __restrict__ hull)
{
    JG_SHARED(Hull, s);
    JG_SHARED(jg::CountScratch<1>, totals);
    const int row = schedule[blockIdx.x], y0 = box[row * 4], h = box[row * 4 + 2] - y0;
    const int32_t* __restrict__ extents = extent + line_start[row] * 2;
    int32_t* stack = scratch + line_start[row] * 6 + row * 2;
    const bool fits = h <= LINES;
    if (fits) JG_FOR(i, 2 * h) s.ends[i] = extents[i];
    __syncthreads();
    const auto end_of = [&](int i, int right) { return fits ? s.ends[i * 2 + right] : extents[i * 2 + right]; };
    // Sides 0 and 1: the smallest column of each line, and the largest, turned round so that both are lower hulls.
    const auto line = [&](int i, int right) {
        const int x = end_of(i, right);
        return Point{x < 0 || x == 32767 ? NOTHING : int64_t(right ? -x : x), i};
    };
    const auto vertices_of = [&](int right) { return Stack{s.vertex[right], stack + right * h, fits}; };
    JG_FOR(right, 2) s.count[right] = lower_hull(h, [&](int i) { return line(i, right); }, vertices_of(right));
    __syncthreads();
    // The same of the edge midpoints, coordinates doubled: line i is at 2 i + 1, the even places between are pixels' upper and
    // lower midpoints. Those of other pixels than vertices lie within the hull: three points a vertex, two of which may meet.
    const auto corner = [&](int j, int right) {
        const Stack of = vertices_of(right);
        const int q = j / 3, part = j % 3, i = of.get(q);
        const int64_t x = 2 * line(i, right).y;
        if (part == 2 && q + 1 < s.count[right] && of.get(q + 1) == i + 1) return Point{NOTHING, 0};
        if (part == 0 && q > 0 && of.get(q - 1) == i - 1) return Point{jg::smaller(x, 2 * line(i - 1, right).y), 2 * i};
        return Point{part == 1 ? x - 1 : x, 2 * i + part};
    };
    const auto corners_of = [&](int right) {
        return Stack{s.corner[right], stack + 2 * h + right * (2 * h + 1), 3 * s.count[right] <= LINES};
    };
    JG_FOR(right, 2)
        s.count[2 + right] = lower_hull(3 * s.count[right], [&](int j) { return corner(j, right); }, corners_of(right));
    JG_ONCE {                                          // the vertices in order, from the leftmost: up, down the right, up again
        const int left = s.count[0], right = s.count[1];
        const Stack a = vertices_of(0), b = vertices_of(1);
        int32_t* out = vertex + line_start[row] * 4;
        int n = 0, last_y = 0, last_x = 0;
        const auto put = [&](int side, int i) {
            const int at = side ? b.get(i) : a.get(i), x = end_of(at, side), y = y0 + at;
            if (n && last_y == y && last_x == x) return;
            out[n * 2] = last_y = y;
            out[n * 2 + 1] = last_x = x;
            if (n < POINTS) {
                s.point[n * 2] = y;
                s.point[n * 2 + 1] = x;
            }
            ++n;
        };
        int start = 0;
        for (int i = 1; i < left; ++i) if (end_of(a.get(i), 0) < end_of(a.get(start), 0)) start = i;
        for (int i = start; i >= 0 && left; --i) put(0, i);
        for (int i = 0; i < right; ++i) put(1, i);
        for (int i = left - 1; i > start; --i) put(0, i);
        if (n > 1 && *out == last_y && last_x == out[1]) --n;
        vertices[row] = n;
        s.points = n;
    }
    __syncthreads();
    jg::Counts<1> convex = {};                         // over all lines, the first column that is not outside
    JG_FOR(e, s.count[2] + s.count[3] - 2) {
        const int side = e < s.count[2] - 1 ? 0 : 1, i = side ? e - (s.count[2] - 1) : e;
        const Point from = corner(corners_of(side).get(i), side), to = corner(corners_of(side).get(i + 1), side);
        const int64_t rise = to.y - from.y, run = to.x - from.x;
        for (int64_t t = from.x | 1; t < to.x; t += 2) convex.v[0] += uint64_t(ceil_of(from.y * run + rise * (t - from.x), 2 * run));
    }
    convex = jg::block_count<1>(convex, totals);
    const int n = s.points;
    const int32_t* __restrict__ point = vertex + line_start[row] * 4;
    const auto v = [&](int i) {
        return POINTS && n <= POINTS ? Point{s.point[i * 2], s.point[i * 2 + 1]} : Point{point[i * 2], point[i * 2 + 1]};
    };
    double* measure = hull + row * HULL;
    for (int task = jg::warp_id(); task < 3; task += jg::warps()) {
        if (task == 0 && jg::lane() == 0) {
            const Circle circle = enclosing_circle(n, v);
            measure[2] = circle.y;
            measure[3] = circle.x;
            measure[4] = circle.radius;
        }
        if (task == 1) {
            const double maximum = max_feret(n, v);
            if (jg::lane() == 0) measure[0] = maximum;
        }
        if (task == 2 && jg::lane() == 0) {
            measure[1] = min_feret(n, v);
            measure[5] = double(h - int64_t(convex.v[0]));
        }
    }
}
JG_REGISTER(trace_hulls)

// In   box         int32 [R, 4]
//      counts      int32 [R, 5]         straight, slanted, half, euler, edge (outline.cu)
//      moments     float64 [R, 10, 10]
//      hull        float64 [R, HULL]
//      radii       float64 [R, 3]       largest, mean, median (distance_map.cu)
// Out  shapes      float64 [R, Shape::COUNT]
extern "C" __global__ void __launch_bounds__(128, 8) measure_shapes(
    const int32_t* __restrict__ box, const int32_t* __restrict__ counts, const double* __restrict__ moments,
    const double* __restrict__ hull, const double* __restrict__ radii, int32_t rows, double* __restrict__ shapes)
{
    JG_FOR_FEW(row, rows) {
        const double* __restrict__ m = moments + row * MOMENTS;
        const int32_t* __restrict__ at = box + row * 4;
        const int32_t* __restrict__ rim = counts + row * 5;
        const double* __restrict__ bound = hull + row * HULL;
        double* __restrict__ out = shapes + row * Shape::COUNT;
        const double n = m[0], inside = double(at[2] - at[0]) * (at[3] - at[1]);
        const double nan = n * 0.0 / 0.0;
        out[Shape::Area] = n;
        for (int i = 1; i < Shape::COUNT; ++i) out[i] = nan;
        if (n == 0) continue;
        const double root2 = 1.41421356237309514547;
        const double perimeter = rim[0] + rim[1] * root2 + rim[2] * ((1 + root2) / 2);
        // Second moments about the centroid; sums about the box's middle are exact, and its distance from there is small.
        const double sum_y = m[10], sum_x = m[1];
        const double yy = (m[20] - sum_y * sum_y / n) / n, xx = (m[2] - sum_x * sum_x / n) / n, xy = (m[11] - sum_y * sum_x / n) / n;
        const double half = (yy + xx) / 2, apart = sqrt((yy - xx) * (yy - xx) + 4 * xy * xy) / 2;
        const double major = half + apart;
        const double minor = jg::larger(major > 0 ? (yy * xx - xy * xy) / major : 0, 0.0);      // product of both over one
        const double turn = xx == yy ? (xy > 0 ? -jg::PI / 4 : jg::PI / 4) : 0.5 * jg::atan2_same(2 * xy, yy - xx);
        out[Shape::BoundingBoxArea] = inside;
        out[Shape::BoundingBoxMaximum_X] = at[3];
        out[Shape::BoundingBoxMaximum_Y] = at[2];
        out[Shape::BoundingBoxMinimum_X] = at[1];
        out[Shape::BoundingBoxMinimum_Y] = at[0];
        out[Shape::Center_X] = ((at[1] + at[3]) >> 1) + sum_x / n;
        out[Shape::Center_Y] = ((at[0] + at[2]) >> 1) + sum_y / n;
        out[Shape::Compactness] = perimeter * perimeter / (4 * jg::PI * n);
        out[Shape::Eccentricity] = major > 0 ? sqrt(jg::larger(1 - minor / major, 0.0)) : 0;
        out[Shape::EquivalentDiameter] = sqrt(4 * n / jg::PI);
        out[Shape::EulerNumber] = rim[3];
        out[Shape::Extent] = n / inside;
        out[Shape::FormFactor] = 4 * jg::PI * n / (perimeter * perimeter);
        out[Shape::MajorAxisLength] = 4 * sqrt(major);
        out[Shape::MaxFeretDiameter] = bound[0];
        out[Shape::MaximumRadius] = radii[row * 3];
        out[Shape::MeanRadius] = radii[row * 3 + 1];
        out[Shape::MedianRadius] = radii[row * 3 + 2];
        out[Shape::MinFeretDiameter] = bound[1];
        out[Shape::MinorAxisLength] = 4 * sqrt(minor);
        out[Shape::Orientation] = turn * (180 / jg::PI);
        out[Shape::Perimeter] = perimeter;
        out[Shape::Solidity] = n / bound[5];
        out[Shape::ConvexArea] = bound[5];
    }
}
JG_REGISTER(measure_shapes)
