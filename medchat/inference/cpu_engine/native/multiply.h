// Products of several matrices with the same activations, shared among threads.
#pragma once

#include <initializer_list>

#include "phases.h"
#include "product.h"

namespace medchat {

// Computes all `products` in one phase. Which thread takes which rows changes no result.
void multiply(ProductKernel kernel, std::initializer_list<Product> products, Phases& phases);

}  // namespace medchat
