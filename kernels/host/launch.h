// launch.h: a kernel as a C function that takes what cuLaunchKernel takes.
//
// JG_REGISTER(k) defines `const char* jg_launch_k(grid, block, args, workers, seed)`: args[i] points to the i-th argument's
// value; `workers` threads run the blocks of the serial build, `seed` picks the schedule of the fibers; the result is null
// or says what is wrong. A grid of 0 blocks does nothing. `const char* jg_types_k()` tells the arguments' types, so that a
// library that was built from other sources is noticed before it is handed the wrong arguments.
#pragma once
#include <type_traits>
#include <utility>

namespace jg { namespace host {
// A type as a letter of Python's struct module.
template <class T> constexpr char letter = 0;
template <> inline constexpr char letter<int8_t> = 'b';
template <> inline constexpr char letter<uint8_t> = 'B';
template <> inline constexpr char letter<int16_t> = 'h';
template <> inline constexpr char letter<uint16_t> = 'H';
template <> inline constexpr char letter<int32_t> = 'i';
template <> inline constexpr char letter<uint32_t> = 'I';
template <> inline constexpr char letter<int64_t> = 'q';
template <> inline constexpr char letter<uint64_t> = 'Q';
template <> inline constexpr char letter<float> = 'f';
template <> inline constexpr char letter<double> = 'd';

template <auto Kernel> struct Launch;
template <class... A, void (*Kernel)(A...)> struct Launch<Kernel> {
    // The arguments: 'P' for each pointer and '-' for each value, then the letter of what each points to or is.
    template <class T> static constexpr char letter_of = letter<std::remove_cv_t<std::remove_pointer_t<T>>>;
    static constexpr char types[] = {(std::is_pointer<A>::value ? 'P' : '-')..., letter_of<A>..., 0};
    template <size_t... I> static void call(void** args, std::index_sequence<I...>) {
        Kernel(*static_cast<A*>(args[I])...);
        (void)args;
    }
    static void body(void* args) { call(static_cast<void**>(args), std::index_sequence_for<A...>{}); }
};
}}  // namespace jg::host

#define JG_REGISTER(kernel)                                                                                  \
    extern "C" __attribute__((visibility("default"))) const char* jg_types_##kernel() {                      \
        return jg::host::Launch<&kernel>::types;                                                             \
    }                                                                                                        \
    extern "C" __attribute__((visibility("default"))) const char* jg_launch_##kernel(                        \
        unsigned grid, unsigned block, void** args, unsigned workers, uint64_t seed) {                       \
        return grid ? jg::host::run(grid, block, workers, seed, jg::host::Launch<&kernel>::body, args) : nullptr; \
    }
