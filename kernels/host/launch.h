// launch.h: a kernel as a C function that takes what cuLaunchKernel takes.
//
// JG_REGISTER(k) defines `const char* jg_launch_k(grid, block, args, workers, seed)`: args[i] points to the i-th argument's
// value; `workers` threads run the blocks of the serial build, `seed` picks the schedule of the fibers; the result is null
// or says what is wrong. A grid of 0 blocks does nothing.
#pragma once
#include <utility>

namespace jg { namespace host {
template <auto Kernel> struct Launch;
template <class... A, void (*Kernel)(A...)> struct Launch<Kernel> {
    template <size_t... I> static void call(void** args, std::index_sequence<I...>) {
        Kernel(*static_cast<A*>(args[I])...);
        (void)args;
    }
    static void body(void* args) { call(static_cast<void**>(args), std::index_sequence_for<A...>{}); }
};
}}  // namespace jg::host

#define JG_REGISTER(kernel)                                                                                  \
    extern "C" __attribute__((visibility("default"))) const char* jg_launch_##kernel(                        \
        unsigned grid, unsigned block, void** args, unsigned workers, uint64_t seed) {                       \
        return grid ? jg::host::run(grid, block, workers, seed, jg::host::Launch<&kernel>::body, args) : nullptr; \
    }
