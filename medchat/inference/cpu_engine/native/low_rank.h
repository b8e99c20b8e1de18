// What an adapter (LoRA) adds to the product of a packed matrix.
#pragma once

#include <cstddef>

namespace medchat {

// up(down(inputs)), in float32: the inner products of the inputs with the rows `down` [rank, columns of the matrix] are the
// coefficients of the rows `up` [rank, rows of the matrix]. Owns nothing; nothing is added where the rank is 0.
struct LowRank {
    size_t rank = 0;
    const float* down = nullptr;
    const float* up = nullptr;
};

}  // namespace medchat
