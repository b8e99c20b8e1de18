// The product of a packed matrix with quantised activations, one kernel an instruction set.
//
// Every kernel gives the same bits: the sums of a tile's row over `upper` and `low` activations are whole numbers, and the
// groups of a row are added up in float32 in their order: `sum = fma(upper sum, 256, low sum)`, then
// `total = fma(sum, scale of weights * scale of activations, total)`.
#pragma once

#include "activations.h"
#include "layout.h"
#include "low_rank.h"

// Compilers before GCC 11 and Clang 11 know no AMX, and only Linux is asked for its registers.
#if defined(__x86_64__) && defined(__linux__) && __has_include(<amxint8intrin.h>)
#define MEDCHAT_AMX
#endif

namespace medchat {

// `outputs` holds a token's results at `token * matrix.rows`. `bias` is one float a row, or null. `coefficients` has room for
// those of `low_rank`, [tokens, rank].
struct Product {
    const PackedMatrix& matrix;
    const Activations& activations;
    const float* bias;
    float* outputs;
    LowRank low_rank{};
    float* coefficients = nullptr;
};
// Multiplies the rows of the blocks [first_block, last_block) with every token, and adds the bias.
using ProductKernel = void (*)(const Product& product, size_t first_block, size_t last_block);

void product_scalar(const Product& product, size_t first_block, size_t last_block);
#if defined(__x86_64__)
void product_avx2(const Product& product, size_t first_block, size_t last_block);
void product_avx512(const Product& product, size_t first_block, size_t last_block);
#endif
#if defined(MEDCHAT_AMX)
void product_amx(const Product& product, size_t first_block, size_t last_block);
#endif

// Where the results of the rows of a block go, which the last block may not fill.
struct BlockOutputs {
    float totals[kBlockRows];

    explicit BlockOutputs(const Product& product, size_t block) {
        for (size_t row = 0; row < kBlockRows; ++row) {
            const size_t index = block * kBlockRows + row;
            totals[row] = product.bias != nullptr && index < product.matrix.rows ? product.bias[index] : 0.0f;
        }
    }

    void store(const Product& product, size_t block, size_t token) const {
        float* outputs = product.outputs + token * product.matrix.rows;
        for (size_t row = 0; row < kBlockRows && block * kBlockRows + row < product.matrix.rows; ++row) {
            outputs[block * kBlockRows + row] = totals[row];
        }
    }
};

}  // namespace medchat
