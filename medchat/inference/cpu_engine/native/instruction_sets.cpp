#include "instruction_sets.h"

#if defined(MEDCHAT_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace medchat {
namespace {

#if defined(MEDCHAT_AMX)
// Linux gives a process the tile registers when it asks for them (ARCH_REQ_XCOMP_PERM, for XTILEDATA).
bool may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

bool has_tiles() {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    constexpr unsigned tiles = 1u << 24, int8_products = 1u << 25;
    return (edx & tiles) && (edx & int8_products) && may_use_tiles();
}
#endif

}  // namespace

bool can_run(int set) {
    if (set == kScalar) return true;
#if defined(__x86_64__)
    // Asks the system too: it must keep the wide registers when it switches threads.
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (set == kAvx2) return avx2;
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vnni");
    if (set == kAvx512) return avx512;
#endif
#if defined(MEDCHAT_AMX)
    if (set == kAmx) return avx512 && has_tiles();
#endif
    return false;
}

ProductKernel product_kernel(int set) {
#if defined(MEDCHAT_AMX)
    if (set == kAmx) return product_amx;
#endif
#if defined(__x86_64__)
    if (set == kAvx512) return product_avx512;
    if (set == kAvx2) return product_avx2;
#endif
    (void)set;
    return product_scalar;
}

const VectorKernels& vector_kernels(int set) {
#if defined(__x86_64__)
    if (set >= kAvx512) return kAvx512VectorKernels;
    if (set == kAvx2) return kAvx2VectorKernels;
#endif
    (void)set;
    return kScalarVectorKernels;
}

}  // namespace medchat
