// The reference: plain C++, what every other kernel must equal bit by bit.
#include <cmath>

#include "half.h"
#include "product.h"
#include "tile.h"

namespace medchat {
namespace {

float row_sum(const PackedMatrix& matrix, const uint8_t* tile, size_t row, const ActivationGroup& group, const LowActivations* lows) {
    int32_t upper = 0, low = 0;
    for (size_t column = 0; column < kGroupColumns; ++column) {
        const int32_t weight = tile_integer(matrix.bits, tile, row, column);
        upper += weight * (group.high[column] * 256 + group.middle[column]);
        if (lows != nullptr) low += weight * lows->low[column];
    }
    return std::fma(static_cast<float>(upper), kUpperUnit, static_cast<float>(low));
}

void multiply_block(const Product& product, size_t block, size_t token) {
    const PackedMatrix& matrix = product.matrix;
    const TokenGroups groups = product.activations.token(token);
    BlockOutputs outputs(product, block);
    for (size_t g = 0; g < matrix.groups(); ++g) {
        const size_t tile = block * matrix.groups() + g;
        const ActivationGroup& group = groups.first[g * groups.stride];
        const LowActivations* low = groups.low == nullptr ? nullptr : groups.low + g * groups.stride;
        for (size_t row = 0; row < kBlockRows; ++row) {
            const float sum = row_sum(matrix, matrix.integers + tile * matrix.tile_bytes(), row, group, low);
            const float scale = half_to_float(matrix.scales[tile * kBlockRows + row]) * group.scale;
            outputs.totals[row] = std::fma(sum, scale, outputs.totals[row]);
        }
    }
    outputs.store(product, block, token);
}

}  // namespace

void product_scalar(const Product& product, size_t first_block, size_t last_block) {
    for (size_t block = first_block; block < last_block; ++block) {
        for (size_t token = 0; token < product.activations.tokens(); ++token) multiply_block(product, block, token);
    }
}

}  // namespace medchat
