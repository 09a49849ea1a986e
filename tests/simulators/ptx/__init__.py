"""The PTX that NVRTC makes of a kernel, run without a GPU and watched."""
