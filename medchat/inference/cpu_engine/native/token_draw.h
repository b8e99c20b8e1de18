// Drawing a token from the scores of a whole vocabulary: medchat/inference/token_draw.py says what is drawn, and why so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mersenne_twister.h"
#include "vector_kernels.h"

namespace medchat {

struct TokenDraw {
    const float* scores;
    size_t count;
    // What the scores are divided by once the largest is taken off.
    float temperature;
    // What the unlikeliest tokens, which are left out, may have together; negative where none is.
    double left_out;
    // So many of the largest scores are kept before that, and those that equal the last of them; at least one.
    size_t kept;
};

// Where rounding decides which token it is.
constexpr int64_t kUndecided = -1;

// Returns the token that is drawn, or `kUndecided`. Throws std::bad_alloc.
int64_t draw_token(const TokenDraw& draw, const VectorKernels& kernels, MersenneTwister& random);

}  // namespace medchat
