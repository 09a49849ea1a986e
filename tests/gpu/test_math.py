"""jg_math.cuh against mpmath: within the stated units in the last place, over the stated ranges and at awkward points."""

import ctypes
from functools import cache
from pathlib import Path

import mpmath
import numpy as np
import pytest

from jumpgpu.gpu.kernel_source import kernel_folder
from tests.simulators.builds import cached, compiler, run_compiler

ULP = 2.5  # the bound that jg_math.cuh states
SHIM = """
#include "jg/jg_math.cuh"
extern "C" void math(int what, int n, const double* x, const double* y, double* out) {
    for (int i = 0; i < n; ++i) {
        double other;
        if (what == 0) out[i] = jg::exp_same(x[i]);
        if (what == 1) out[i] = jg::log_same(x[i]);
        if (what == 2) out[i] = jg::atan2_same(y[i], x[i]);
        if (what == 3) jg::sincos_same(x[i], out + i, &other);
        if (what == 4) jg::sincos_same(x[i], &other, out + i);
        if (what == 5) out[i] = jg::acos_nearest(x[i]);
    }
}
"""
NAMES = ("exp", "log", "atan2", "sin", "cos", "acos")


@cache
def shim() -> ctypes.CDLL:
    flags = "-std=c++17 -O2 -w -ffp-contract=off -fPIC -shared"
    headers = [(kernel_folder() / name).read_text() for name in ("jg/jg.cuh", "jg/jg_math.cuh")]

    def make(out: Path) -> None:
        source = out.with_suffix(".cpp")
        source.write_text(SHIM)
        run_compiler("math shim", *flags.split(), "-I", str(kernel_folder()), str(source), "-o", str(out))

    return ctypes.CDLL(str(cached("math.so", (SHIM, flags, *headers, *compiler()), make)))


def ours(what: str, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    out = np.empty_like(x)
    y = x if y is None else y
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y, out)]
    shim().math(NAMES.index(what), x.size, *pointers)
    return out


def ulps(got: np.ndarray, want: list[mpmath.mpf]) -> float:
    """The largest error in units of the last place of the true value."""
    worst = 0.0
    for g, w in zip(got.tolist(), want, strict=True):
        unit = np.spacing(abs(float(w))) if w else np.spacing(0.0)
        worst = max(worst, float(abs(mpmath.mpf(g) - w) / mpmath.mpf(unit)))
    return worst


def drawn(n: int, low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, n)


def points(what: str) -> np.ndarray:
    if what == "exp":
        return np.concatenate([drawn(3000, -700, 700), drawn(2000, -1, 1), [0.0, -0.0, 1e-300, 700.0, -700.0, 0.34657359]])
    if what == "log":
        spread = 2.0 ** drawn(3000, -1000, 1000)
        return np.concatenate(
            [spread, drawn(3000, 0.5, 2.0), 1 + drawn(1000, -1e-6, 1e-6), np.arange(1.0, 2000.0), [2**0.5]]
        )
    spread = drawn(3000, -1e5, 1e5)
    near = np.arange(-400, 400) * (np.pi / 2)  # where sine or cosine is near 0
    return np.concatenate([spread, drawn(2000, -7, 7), near, [0.0, 1e-12]])


@pytest.mark.parametrize("what", ["exp", "log", "sin", "cos"])
def test_within_the_stated_bound(what, capsys):
    x = points(what)
    with mpmath.workdps(60):
        want = [getattr(mpmath, what)(mpmath.mpf(v)) for v in x.tolist()]
        worst = ulps(ours(what, x), want)
    with capsys.disabled():
        print(f"\n{what}: at most {worst:.2f} ulp over {x.size} points", end="")
    assert worst <= ULP


def test_atan2_within_the_stated_bound(capsys):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=4000) * 10.0 ** rng.uniform(-6, 6, 4000) for _ in range(2))
    grid = np.array([(a, b) for a in range(-6, 7) for b in range(-6, 7) if (a, b) != (0, 0)], float)
    x, y = np.concatenate([x, grid[:, 0]]), np.concatenate([y, grid[:, 1]])
    with mpmath.workdps(60):
        worst = ulps(
            ours("atan2", x, y),
            [mpmath.atan2(mpmath.mpf(b), mpmath.mpf(a)) for a, b in zip(x.tolist(), y.tolist(), strict=True)],
        )
    with capsys.disabled():
        print(f"\natan2: at most {worst:.2f} ulp over {x.size} points", end="")
    assert worst <= ULP


def test_acos_is_the_nearest_double():
    """What decides ties of angles (shape.cu) is rounded as a libm that rounds to nearest does."""
    near_ends = 1 - 10.0 ** drawn(2000, -14, -1)
    squares = np.array([(a / np.sqrt(a * a + b * b)) for a in range(-40, 41) for b in range(1, 41)])
    x = np.concatenate([drawn(20000, -1, 1), near_ends, -near_ends, squares, [0.0, 1.0, -1.0, 0.5, -0.5]])
    with mpmath.workdps(60):
        want = np.array([float(mpmath.acos(mpmath.mpf(v))) for v in x.tolist()])
    np.testing.assert_array_equal(ours("acos", x), want)


def test_exact_points():
    assert ours("exp", np.array([0.0])) == 1
    assert ours("log", np.array([1.0])) == 0
    zero, one = np.array([0.0]), np.array([1.0])
    assert ours("atan2", zero, zero) == 0
    np.testing.assert_array_equal(ours("atan2", -one, zero), np.pi)
    np.testing.assert_array_equal(ours("atan2", zero, -one), -np.pi / 2)
    assert ours("sin", zero) == 0
    assert ours("cos", zero) == 1
    powers = 2.0 ** np.arange(-1000, 1000)
    np.testing.assert_allclose(ours("log", powers), np.arange(-1000, 1000) * np.log(2), rtol=1e-15)
