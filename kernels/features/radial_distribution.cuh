// radial_distribution.cuh: what the two halves of the radial distribution agree on, the rings (radial_distribution.cu) and what is summed in them.
#pragma once

constexpr int WEDGES = 8, MAX_BINS = 31, NO_RING = 255;
constexpr int CHUNK = 16;                              // a line of a map is a multiple of this (distance_map.py: CHUNK)
constexpr int LINES = 4;                               // lines that a GPU's warp asks for at once
