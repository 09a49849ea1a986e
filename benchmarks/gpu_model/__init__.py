"""The GPU backend, predicted: counts of its kernels against published figures of four GPUs (docs/gpu_model.md)."""
