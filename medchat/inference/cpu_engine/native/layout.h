// How a quantised matrix lies in memory (docs/specs/engine.md, "Packed matrices").
//
// Rows are taken 16 at a time (a block), columns 32 at a time (a group). A block and a group meet in a tile:
// 16 x 32 integers that share 16 scales, one a row. All tiles of a block follow each other, then the next block's.
// Scales stand behind all integers, in the order of the tiles.
#pragma once

#include <cstddef>
#include <cstdint>

namespace medchat {

constexpr size_t kBlockRows = 16;
constexpr size_t kGroupColumns = 32;

constexpr size_t divided_up(size_t count, size_t size) { return (count + size - 1) / size; }

// A packed matrix of `rows` x `columns` integers of `bits` bits each. Owns nothing.
struct PackedMatrix {
    int bits;
    size_t rows;
    size_t columns;
    const uint8_t* integers;
    const uint16_t* scales;

    size_t blocks() const { return divided_up(rows, kBlockRows); }
    size_t groups() const { return divided_up(columns, kGroupColumns); }
    size_t tile_bytes() const { return kBlockRows * kGroupColumns * static_cast<size_t>(bits) / 8; }
    size_t integer_bytes() const { return blocks() * groups() * tile_bytes(); }
    size_t scale_count() const { return blocks() * groups() * kBlockRows; }
};

// Integers are stored without sign: this much is added to each.
constexpr int stored_offset(int bits) { return 1 << (bits - 1); }

}  // namespace medchat
