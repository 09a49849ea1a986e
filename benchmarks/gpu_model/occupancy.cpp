// occupancy.cpp: NVIDIA's occupancy calculator (cuda_occupancy.h of the CUDA toolkit) for a GPU described by numbers.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <cuda_occupancy.h>

// Blocks an SM; -1 where the calculator refuses. `shared` is static shared memory a block.
extern "C" int blocks_per_sm(int major, int minor, int threads, int shared_sm, int shared_block, int sms, int registers, int shared, int block) {
    cudaOccDeviceProp p;
    p.computeMajor = major; p.computeMinor = minor;
    p.maxThreadsPerBlock = 1024; p.maxThreadsPerMultiprocessor = threads;
    p.regsPerBlock = 65536; p.regsPerMultiprocessor = 65536; p.warpSize = 32;
    p.sharedMemPerBlock = 49152; p.sharedMemPerMultiprocessor = size_t(shared_sm);
    p.numSms = sms; p.sharedMemPerBlockOptin = size_t(shared_block);
    p.reservedSharedMemPerBlock = major >= 8 ? 1024 : 0;
    cudaOccFuncAttributes a;
    a.maxThreadsPerBlock = 1024; a.numRegs = registers; a.sharedSizeBytes = size_t(shared);
    a.partitionedGCConfig = PARTITIONED_GC_OFF; a.shmemLimitConfig = FUNC_SHMEM_LIMIT_DEFAULT;
    a.maxDynamicSharedSizeBytes = 0; a.numBlockBarriers = 1;
    cudaOccDeviceState s;
    s.cacheConfig = CACHE_PREFER_SHARED; s.carveoutConfig = 100;
    cudaOccResult r;
    return cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &a, &s, block, 0) == CUDA_OCC_SUCCESS ? r.activeBlocksPerMultiprocessor : -1;
}
