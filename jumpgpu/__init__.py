"""jumpgpu: single-cell Cell Painting features from images, at the speed of the disk."""
