// register_loads.cuh: values that a thread asks memory for before it needs them.
#pragma once
#include "jg/jg.cuh"

namespace jg {

// v is loaded here at the latest. Of values loaded together and used one after the other the compiler would otherwise load each
// where it is used, and a thread would wait for each in turn.
template <class T> JG_FN void held_here(T& v) {
    static_assert(sizeof(T) == 4, "a register");
#if defined(JG_CUDA)
    asm volatile("" : "+r"(reinterpret_cast<int32_t&>(v)));
#else
    (void)v;
#endif
}

}  // namespace jg
