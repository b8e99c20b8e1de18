#include "instruction_sets.h"

namespace medchat {

bool can_run(int set) {
    if (set == kScalar) return true;
#if defined(__x86_64__)
    // Asks the system too: it must keep the wide registers when it switches threads.
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (set == kAvx2) return avx2;
    if (set == kAvx512) {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vnni");
    }
#endif
    return false;
}

ProductKernel product_kernel(int set) {
#if defined(__x86_64__)
    if (set == kAvx512) return product_avx512;
    if (set == kAvx2) return product_avx2;
#endif
    (void)set;
    return product_scalar;
}

}  // namespace medchat
