// The kernels of vector_kernels.h in Plain C++.
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "lanes_scalar.h"
#include "vector_kernels.h"

#define KERNEL

namespace medchat {
namespace scalar {
namespace {

#include "vector_kernels_body.h"

}  // namespace
}  // namespace scalar

const VectorKernels kScalarVectorKernels = scalar::kKernels;

}  // namespace medchat
