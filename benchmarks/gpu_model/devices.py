"""Five GPUs as their makers describe them, and the latencies that others measured. Nothing here was measured by us.

Sources
  sheets    NVIDIA data sheets and whitepapers: T4, A100 SXM4 40 GB and the GA100 whitepaper, H100 SXM5 and the GH100
            whitepaper, H200 SXM (the H100's chip with more and faster memory), RTX 4090 and the
            AD102 whitepaper: SMs, boost clock, memory bandwidth, L2, PCIe
  guide     CUDA C++ Programming Guide, tables "Throughput of Native Arithmetic Instructions" and "Technical Specifications
            per Compute Capability": results a clock an SM, warps, blocks, registers and shared memory an SM
  latency   T4: Jia et al. 2019, arXiv 1903.07486; A100, H100, RTX 4090: Luo et al. 2024, arXiv 2402.13499, in cycles;
            H200: the H100's
  assumed   the latency of a dependent FP64 instruction on T4 and RTX 4090 (40 cycles), a barrier (20), L2 bandwidth (64
            bytes a clock an SM, which A100 and H100 were measured at about), 2 us between launches that follow each other on
            a stream, 80 % of PCIe's nominal rate
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU. Clocks in Hz, memory in bytes per second; lanes are results a clock and SM; latencies in cycles."""

    name: str
    architecture: str
    sms: int
    clock: float
    dram: float
    l2_bytes: int
    fp64_lanes: int
    int_lanes: int
    pcie: float
    latency: tuple[int, int, int, int]  # L1, L2, DRAM, shared memory
    fp64_latency: int
    threads: int  # an SM
    shared: int  # bytes per SM
    shared_block: int  # bytes per block, the most that can be asked for

    @property
    def capability(self) -> tuple[int, int]:
        number = int(self.architecture.removeprefix("sm_"))
        return number // 10, number % 10


GPUS = (
    Gpu("T4", "sm_75", 40, 1.59e9, 320e9, 4 << 20, 2, 64, 15.75e9, (32, 188, 296, 19), 40, 1024, 65536, 65536),
    Gpu("A100", "sm_80", 108, 1.41e9, 1555e9, 40 << 20, 32, 64, 31.5e9, (38, 262, 466, 29), 8, 2048, 167936, 166912),
    Gpu("H100", "sm_90", 132, 1.98e9, 3350e9, 50 << 20, 64, 64, 63e9, (41, 263, 479, 29), 8, 2048, 233472, 232448),
    Gpu("H200", "sm_90", 132, 1.98e9, 4800e9, 50 << 20, 64, 64, 63e9, (41, 263, 479, 29), 8, 2048, 233472, 232448),
    Gpu("RTX 4090", "sm_89", 128, 2.52e9, 1008e9, 72 << 20, 2, 64, 31.5e9, (43, 273, 542, 30), 40, 1536, 102400, 101376),
)
ISSUES = 4  # warp instructions a clock and SM
L1_BYTES = 64  # a clock and SM, from L1 and, beyond it, from L2
BARRIER = 20  # cycles
LAUNCH_S = 2e-6  # between launches that follow each other
PCIE_SHARE = 0.8
