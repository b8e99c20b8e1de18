// What Python calls for matrices, through ctypes (`medchat/inference/cpu_engine/library.py`). Sizes, alignment and ranges are checked
// there before a pointer is made; nothing here throws across the boundary.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "activations.h"
#include "exported.h"
#include "instruction_sets.h"
#include "multiply.h"
#include "tile.h"

using namespace medchat;

// Rises when a function below changes: a library that an older version built is not used.
EXPORTED int medchat_interface_version() { return 7; }

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

// outputs[tokens, rows] = inputs[tokens, columns] x matrix transposed + bias, which may be null. `precise` activations have
// 24 bits, others 16.
EXPORTED int medchat_multiply(
    int set, size_t threads, int precise, int bits, size_t rows, size_t columns, const uint8_t* packed, const float* bias,
    size_t tokens, const float* inputs, float* outputs) {
    try {
        Activations activations(precise != 0);
        activations.resize(tokens, columns);
        Phases phases(threads);
        phases.run(tokens, [&](size_t token) { activations.quantise(token, inputs + token * columns); });
        const PackedMatrix matrix = matrix_at(bits, rows, columns, packed);
        multiply({product_kernel(set), vector_kernels(set)}, {{matrix, activations, bias, outputs}}, inputs, phases);
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
    return kDone;
}
