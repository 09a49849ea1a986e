"""Drawn Cell Painting fields with known nuclei, cells and intensities.

A caricature and no model of biology: it has the sizes, count ranges and textures that segmentation and measurement meet on
real fields (U2OS, 20x, 0.6 um a pixel), and the answers. Every field is drawn from its own generator.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.ndimage import gaussian_filter

from ..settings.names import CHANNELS

NUCLEUS = 18.0  # mean radius, pixels
CELL = 42.0
BACKGROUND = {"DNA": 550.0, "ER": 400.0, "RNA": 590.0, "AGP": 700.0, "Mito": 1000.0}  # counts, as in CPJUMP1's fields
LENGTHS = (1.2, 2.5, 5.0)  # correlation lengths of the noise tiles, pixels; two tiles of fibres follow
GAIN = 0.6  # counts of variance a count of signal
READ_NOISE = 6.0  # counts
PSF = 0.9  # sigma, pixels


@dataclass(frozen=True)
class Effects:
    """What a treatment multiplies; 1 is an untreated cell."""

    count: float = 1.0  # cells per field
    nucleus: float = 1.0  # radius
    cell: float = 1.0  # radius
    dna: float = 1.0  # intensities
    er: float = 1.0
    rna: float = 1.0
    agp: float = 1.0
    mito: float = 1.0
    chromatin: float = 1.0  # contrast of the DNA texture
    nucleoli: float = 1.0
    golgi: float = 1.0
    fibres: float = 1.0
    membrane: float = 1.0
    reticulum: float = 1.0  # contrast of the ER texture
    network: float = 1.0  # share of mitochondria in threads

    def at(self, strength: float) -> "Effects":
        """The same effect at another strength: 0 none, 1 this one."""
        return Effects(**{f.name: getattr(self, f.name) ** strength for f in fields(self)})


@dataclass(frozen=True)
class Drawn:
    """A field and its truth.

    images : uint16 [C, H, W], channels in the order of `names.CHANNELS`
    nuclei, cells : int32 [H, W], labels that share numbers 1..n
    table : one row per cell: y, x (centre of the nucleus), nucleus_area, cell_area, touches_border, and for each channel the
        mean noise-free signal over the cell, background and fall-off left out, in counts
    """

    images: np.ndarray
    nuclei: np.ndarray
    cells: np.ndarray
    table: dict[str, np.ndarray]


def make_tiles(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Periodic noise of unit variance, float32 [5, H, W]: three isotropic lengths, then fibres along x and along y."""
    ky, kx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
    shapes = [(length, length) for length in LENGTHS] + [(1.0, 12.0), (12.0, 1.0)]
    tiles = []
    for dy, dx in shapes:
        spectrum = np.fft.rfft2(rng.standard_normal(size)) * np.exp(-2 * np.pi**2 * ((dy * ky) ** 2 + (dx * kx) ** 2))
        spectrum[0, 0] = 0
        tile = np.fft.irfft2(spectrum, size)
        tiles.append((tile / tile.std()).astype(np.float32))
    return np.stack(tiles)


def falloff_coefficients() -> dict[str, tuple[tuple[float, ...], ...]]:
    """Illumination polynomials of degree 4 by channel, in units of the field's side from its centre, as in Harmony."""
    table: dict[str, tuple[tuple[float, ...], ...]] = {}
    for c, channel in enumerate(CHANNELS):
        tilt = 0.06 * np.cos(2.1 * c), 0.06 * np.sin(2.1 * c)
        bowl = 1.0 - 0.1 * c
        table[channel] = (
            (1.25,),
            (round(float(tilt[0]), 4), round(float(tilt[1]), 4)),
            (round(-bowl, 4), 0.05, round(-bowl, 4)),
            (0.02, 0.0, 0.03, -0.02),
            (0.3, 0.0, 0.2, 0.0, 0.3),
        )
    return table


def falloff(size: tuple[int, int]) -> np.ndarray:
    """The illumination of a field by those polynomials, 1 at its brightest, float32 [C, H, W]."""
    v = ((np.arange(size[0]) - (size[0] - 1) / 2) / size[0])[:, None]
    u = ((np.arange(size[1]) - (size[1] - 1) / 2) / size[1])[None, :]
    planes = []
    for rows in falloff_coefficients().values():
        value = sum(c * u ** (d - j) * v**j for d, row in enumerate(rows) for j, c in enumerate(row)) + 0 * u * v
        planes.append(value / value.max())
    return np.stack(planes).astype(np.float32)


def draw_field(
    rng: np.random.Generator, size: tuple[int, int], n_cells: float, effects: Effects, tiles: np.ndarray, light: np.ndarray
) -> Drawn:
    """Draw a field of about `n_cells` cells; `tiles` from `make_tiles` and `light` from `falloff`, both of this size."""
    height, width = size
    crowd = np.sqrt(height * width / max(n_cells, 1.0))  # mean distance of neighbours
    radius = min(NUCLEUS, 0.36 * crowd) * effects.nucleus
    reach = min(CELL, 0.72 * crowd) * effects.cell
    wanted = int(rng.poisson(n_cells * effects.count))
    centres = place(rng, size, wanted, 1.9 * radius)
    nuclei, cells, u, t, centres, angles = outline(rng, size, centres, radius, reach)
    n = len(centres)
    shifts = rng.integers(0, (height, width), (len(tiles), 2))
    fine, middle, coarse, *fibres = (np.roll(tile, tuple(s), (0, 1)) for tile, s in zip(tiles, shifts, strict=True))

    def per_cell(spread: float, scale: float = 1.0) -> np.ndarray:
        """A factor a cell, log-normal, as an image; 0 outside cells."""
        factors = np.concatenate([[0.0], scale * np.exp(spread * rng.standard_normal(n))]).astype(np.float32)
        return factors[cells]

    inside = cells > 0
    nuclear = np.clip((1 - u) / 0.08, 0, 1) * (nuclei > 0)
    body = np.clip((1 - t) / 0.12, 0, 1) * inside
    size_factor = per_cell(0.2)  # a bright cell is bright in every channel
    signal = np.empty((len(CHANNELS), height, width), np.float32)
    chromatin = 1 + 0.16 * effects.chromatin * (0.6 * fine + 0.4 * middle)
    signal[0] = effects.dna * per_cell(0.18, 8200) * nuclear * (1 - 0.25 * u * u) * np.maximum(chromatin, 0.1) + 300 * body
    reticulum = 1 + 0.13 * effects.reticulum * (0.5 * fine + 0.9 * middle)
    signal[1] = (
        effects.er * 3900 * size_factor * body * (1.15 - 0.85 * t) * np.maximum(reticulum, 0.1) * (1 - 0.15 * nuclear)
    )
    rna = effects.rna * 6800 * size_factor
    signal[2] = rna * body * (1.15 - 0.75 * t) * (1 + 0.1 * middle)
    stamp(signal[2], nucleoli(rng, centres, radius), rna * nuclear * effects.nucleoli * 0.7)
    agp = effects.agp * 2600 * size_factor
    membrane = 0.7 * effects.membrane * np.exp(-(((t - 0.9) / 0.06) ** 2))
    strands = 0.13 * effects.fibres * np.where(cells % 2, *fibres)
    signal[3] = agp * (body * (0.95 - 0.4 * t + 0.1 * middle + strands + 0.8 * nuclear) + membrane * inside)
    stamp(signal[3], golgi(rng, centres, radius, angles), agp * body * effects.golgi * (1.1 + 0.8 * fine))
    threads = np.exp(-((coarse / 0.3) ** 2)) * (0.7 + 0.3 * fine)
    diffuse = effects.network * threads + (1 - min(effects.network, 1)) * 0.45
    signal[4] = effects.mito * 1150 * size_factor * body * (0.25 + (1.15 - 0.9 * t) * diffuse * (1 - 0.7 * nuclear))
    np.maximum(signal, 0, out=signal)
    background = np.array([BACKGROUND[c] for c in CHANNELS], np.float32)[:, None, None]
    images = np.empty(signal.shape, np.uint16)
    for c in range(len(CHANNELS)):
        expected = (gaussian_filter(signal[c], PSF, truncate=3) + background[c]) * light[c]
        noise = rng.standard_normal(size, dtype=np.float32)
        counts = expected + noise * np.sqrt(GAIN * expected + READ_NOISE**2)
        images[c] = np.clip(np.rint(counts), 0, 65535)
    areas = np.bincount(cells.ravel(), minlength=n + 1)[1:]
    rim = np.unique(np.concatenate([nuclei[0], nuclei[-1], nuclei[:, 0], nuclei[:, -1]]))
    table = {
        "object": np.arange(1, n + 1),
        "y": centres[:, 0],
        "x": centres[:, 1],
        "nucleus_area": np.bincount(nuclei.ravel(), minlength=n + 1)[1:],
        "cell_area": areas,
        "touches_border": np.isin(np.arange(1, n + 1), rim).astype(int),
    }
    for c, channel in enumerate(CHANNELS):
        total = np.bincount(cells.ravel(), weights=signal[c].ravel(), minlength=n + 1)[1:]
        table[f"signal_{channel}"] = total / np.maximum(areas, 1)
    return Drawn(images, nuclei, cells, table)


def place(rng: np.random.Generator, size: tuple[int, int], n: int, apart: float) -> np.ndarray:
    """Up to n centres, no two nearer than `apart` but for one in sixteen, which may touch; float64 [n, 2] by y."""
    chosen = np.empty((n, 2))
    result = 0
    for candidate in rng.uniform((0, 0), size, (40 * n, 2)):
        minimum = 0.8 * apart if result % 16 == 0 else apart
        if result == n:
            break
        gaps = chosen[:result] - candidate
        if not result or (gaps * gaps).sum(1).min() > minimum * minimum:
            chosen[result] = candidate
            result += 1
    chosen = chosen[:result]
    return chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))]


def outline(
    rng: np.random.Generator, size: tuple[int, int], centres: np.ndarray, radius: float, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nuclei and cells [H, W], how far out a pixel lies in each (0 centre, 1 outline), and who stays: centres, angles.

    A pixel claimed by several goes to the one in which it lies least far out. A nucleus that others cover is dropped.
    """
    height, width = size
    n = len(centres)
    nuclei, cells = np.zeros(size, np.int32), np.zeros(size, np.int32)
    u, t = np.ones(size, np.float32), np.ones(size, np.float32)
    angles = rng.uniform(0, 2 * np.pi, n)
    flats = rng.uniform(1.05, 1.35, n)
    scales = np.exp(0.1 * rng.standard_normal((n, 2)))
    phases = rng.uniform(0, 2 * np.pi, (n, 4)).astype(np.float32)
    for k, (cy, cx) in enumerate(centres):
        flat, core, rim = float(flats[k]), float(radius * scales[k, 0]), float(reach * scales[k, 1])
        margin = int(np.ceil(flat * max(1.31 * rim, 1.15 * core)))  # how far the waves below can reach
        y0, y1 = max(0, int(cy) - margin), min(height, int(cy) + margin + 1)
        x0, x1 = max(0, int(cx) - margin), min(width, int(cx) + margin + 1)
        dy = (np.arange(y0, y1) - cy).astype(np.float32)[:, None]
        dx = (np.arange(x0, x1) - cx).astype(np.float32)[None, :]
        cos, sin = float(np.cos(angles[k])), float(np.sin(angles[k]))  # plain numbers: the arrays stay float32
        along = dx * cos + dy * sin
        across = dy * cos - dx * sin
        theta = np.arctan2(across, along)
        oval = np.sqrt((along / flat) ** 2 + (across * flat) ** 2)
        bumps = 1 + 0.03 * np.cos(3 * theta + phases[k, 0])
        far = oval * bumps / core
        here = (slice(y0, y1), slice(x0, x1))
        claim = far < u[here]
        u[here][claim] = far[claim]
        nuclei[here][claim] = k + 1
        wavy = 1 + 0.16 * np.cos(2 * theta + phases[k, 1]) + 0.1 * np.cos(3 * theta + phases[k, 2])
        wavy += 0.05 * np.cos(5 * theta + phases[k, 3])
        edge = np.maximum(rim * wavy, 1.15 * core)
        out = oval / edge
        claim = out < t[here]
        t[here][claim] = out[claim]
        cells[here][claim] = k + 1
    cells[nuclei > 0] = nuclei[nuclei > 0]
    kept = np.flatnonzero(np.bincount(nuclei.ravel(), minlength=n + 1)[1:] >= 30)
    renumber = np.zeros(n + 1, np.int32)
    renumber[kept + 1] = np.arange(1, len(kept) + 1)
    nuclei, cells = renumber[nuclei], renumber[cells]
    u[nuclei == 0], t[cells == 0] = 1, 1
    return nuclei, cells, u, t, centres[kept], angles[kept]


def nucleoli(rng: np.random.Generator, centres: np.ndarray, radius: float) -> np.ndarray:
    """Two to four a nucleus: y, x, sigma."""
    counts = rng.integers(2, 5, len(centres))
    owner = np.repeat(np.arange(len(centres)), counts)
    angle, distance = rng.uniform(0, 2 * np.pi, len(owner)), radius * np.sqrt(rng.uniform(0, 0.35, len(owner)))
    y, x = centres[owner, 0] + distance * np.sin(angle), centres[owner, 1] + distance * np.cos(angle)
    return np.stack([y, x, radius * rng.uniform(0.1, 0.18, len(owner))], 1)


def golgi(rng: np.random.Generator, centres: np.ndarray, radius: float, angles: np.ndarray) -> np.ndarray:
    """One beside each nucleus: y, x, sigma."""
    angle = angles + rng.normal(0, 0.5, len(angles))
    y, x = centres[:, 0] + 1.05 * radius * np.sin(angle), centres[:, 1] + 1.05 * radius * np.cos(angle)
    return np.stack([y, x, np.full(len(angles), 0.3 * radius)], 1)


def stamp(image: np.ndarray, spots: np.ndarray, weight: np.ndarray) -> None:
    """Add Gaussian spots (rows y, x, sigma; height 1) times `weight` to an image."""
    height, width = image.shape
    for y, x, sigma in spots:
        r = int(np.ceil(3 * sigma))
        y0, y1, x0, x1 = max(0, int(y) - r), min(height, int(y) + r + 1), max(0, int(x) - r), min(width, int(x) + r + 1)
        if y0 < y1 and x0 < x1:
            gy = np.exp(-(((np.arange(y0, y1) - y) / sigma) ** 2) / 2)
            gx = np.exp(-(((np.arange(x0, x1) - x) / sigma) ** 2) / 2)
            image[y0:y1, x0:x1] += (gy[:, None] * gx[None, :]).astype(np.float32) * weight[y0:y1, x0:x1]
