// The kernels of vector_kernels.h in AVX2.
#if defined(__x86_64__)

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "lanes_avx2.h"
#include "vector_kernels.h"

#define KERNEL __attribute__((target("avx2,fma,f16c")))

namespace medchat {
namespace avx2 {
namespace {

#include "vector_kernels_body.h"

}  // namespace
}  // namespace avx2

const VectorKernels kAvx2VectorKernels = avx2::kKernels;

}  // namespace medchat

#endif
