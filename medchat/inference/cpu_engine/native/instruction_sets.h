// Which kernels this CPU can run.
#pragma once

#include "product.h"
#include "vector_kernels.h"

namespace medchat {

// The numbers that the C interface uses; a higher one is faster.
enum InstructionSet : int { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAmx = 3 };

// Whether the library has a kernel for `set` that this CPU, under this system, can run. False for any other number.
bool can_run(int set);

// The kernel of `set`, for which `can_run` must hold.
ProductKernel product_kernel(int set);

// What else a decoder needs, for `set` likewise.
const VectorKernels& vector_kernels(int set);

}  // namespace medchat
