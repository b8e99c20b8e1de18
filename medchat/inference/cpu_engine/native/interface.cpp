// What Python calls, through ctypes (`medchat/inference/cpu_engine/library.py`). Sizes, alignment and ranges are checked
// there before a pointer is made; nothing here throws across the boundary.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "activations.h"
#include "instruction_sets.h"
#include "product.h"
#include "thread_pool.h"
#include "tile.h"

#if defined(_WIN32)
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif

using namespace medchat;

namespace {

enum Result : int { kDone = 0, kNoMemory = 1 };

// Blocks of one claim: enough claims for threads to even out, few enough weights to stay in the cache while
// the tokens of a long prompt pass over them.
constexpr size_t kClaimsPerThread = 8;
constexpr size_t kMostBlocks = 8;

PackedMatrix matrix_at(int bits, size_t rows, size_t columns, const uint8_t* packed) {
    PackedMatrix matrix{bits, rows, columns, packed, nullptr};
    matrix.scales = reinterpret_cast<const uint16_t*>(packed + matrix.integer_bytes());
    return matrix;
}

void multiply_with(ProductKernel kernel, size_t threads, const Product& product) {
    const size_t blocks = product.matrix.blocks();
    const size_t claim = std::clamp(blocks / (threads * kClaimsPerThread), size_t{1}, kMostBlocks);
    ThreadPool::of_this_process().run(divided_up(blocks, claim), threads, [&](size_t part) {
        kernel(product, part * claim, std::min(blocks, (part + 1) * claim));
    });
}

}  // namespace

// Rises when a function below changes: a library that an older version built is not used.
EXPORTED int medchat_interface_version() { return 1; }

EXPORTED int medchat_can_run(int set) { return can_run(set) ? 1 : 0; }

// Packs `rows` x `columns` integers, one a byte, with `scales` of float16, `rows` x groups. `packed` has room for all.
EXPORTED void medchat_pack(
    int bits, size_t rows, size_t columns, const int8_t* integers, const uint16_t* scales, uint8_t* packed) {
    const PackedMatrix matrix = matrix_at(bits, rows, columns, packed);
    uint16_t* packed_scales = reinterpret_cast<uint16_t*>(packed + matrix.integer_bytes());
    std::memset(packed_scales, 0, matrix.scale_count() * sizeof(uint16_t));
    for (size_t tile = 0; tile < matrix.blocks() * matrix.groups(); ++tile) {
        const size_t first_row = tile / matrix.groups() * kBlockRows, group = tile % matrix.groups();
        const size_t first_column = group * kGroupColumns;
        for (size_t row = 0; row < kBlockRows; ++row) {
            const bool inside = first_row + row < rows;
            if (inside) packed_scales[tile * kBlockRows + row] = scales[(first_row + row) * matrix.groups() + group];
            for (size_t column = 0; column < kGroupColumns; ++column) {
                const bool given = inside && first_column + column < columns;
                const int integer = given ? integers[(first_row + row) * columns + first_column + column] : 0;
                set_tile_integer(bits, packed + tile * matrix.tile_bytes(), row, column, integer);
            }
        }
    }
}

// The inverse of `medchat_pack`.
EXPORTED void medchat_unpack(
    int bits, size_t rows, size_t columns, const uint8_t* packed, int8_t* integers, uint16_t* scales) {
    const PackedMatrix matrix = matrix_at(bits, rows, columns, packed);
    for (size_t row = 0; row < rows; ++row) {
        for (size_t group = 0; group < matrix.groups(); ++group) {
            const size_t tile = row / kBlockRows * matrix.groups() + group;
            scales[row * matrix.groups() + group] = matrix.scales[tile * kBlockRows + row % kBlockRows];
        }
        for (size_t column = 0; column < columns; ++column) {
            const size_t tile = row / kBlockRows * matrix.groups() + column / kGroupColumns;
            const uint8_t* at = packed + tile * matrix.tile_bytes();
            integers[row * columns + column] =
                static_cast<int8_t>(tile_integer(bits, at, row % kBlockRows, column % kGroupColumns));
        }
    }
}

// outputs[tokens, rows] = inputs[tokens, columns] x matrix transposed + bias, which may be null.
EXPORTED int medchat_multiply(
    int set, size_t threads, int bits, size_t rows, size_t columns, const uint8_t* packed, const float* bias,
    size_t tokens, const float* inputs, float* outputs) {
    try {
        Activations activations;
        activations.resize(tokens, columns);
        ThreadPool::of_this_process().run(tokens, tokens > 1 ? threads : 1, [&](size_t token) {
            activations.quantise(token, inputs + token * columns);
        });
        const PackedMatrix matrix = matrix_at(bits, rows, columns, packed);
        multiply_with(product_kernel(set), threads, Product{matrix, activations, bias, outputs});
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
    return kDone;
}
