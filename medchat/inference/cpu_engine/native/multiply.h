// Products of several matrices with the same activations, shared among threads.
#pragma once

#include <vector>

#include "phases.h"
#include "product.h"
#include "vector_kernels.h"

namespace medchat {

// The kernels of one instruction set.
struct MultiplyKernels {
    ProductKernel product;
    const VectorKernels& vectors;
};

// Computes all `products`, what their adapters add included. `inputs` are the rows that the activations were made of, all
// products' alike; without adapters they are not read. Which thread takes what changes no result.
void multiply(const MultiplyKernels& kernels, const std::vector<Product>& products, const float* inputs, Phases& phases);

}  // namespace medchat
