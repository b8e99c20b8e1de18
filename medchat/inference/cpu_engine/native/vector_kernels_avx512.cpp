// The kernels of vector_kernels.h in AVX-512.
#if defined(__x86_64__)

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "lanes_avx512.h"
#include "vector_kernels.h"

#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vnni")))

namespace medchat {
namespace avx512 {
namespace {

#include "vector_kernels_body.h"

}  // namespace
}  // namespace avx512

const VectorKernels kAvx512VectorKernels = avx512::kKernels;

}  // namespace medchat

#endif
