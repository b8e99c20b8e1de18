// Where an integer of a tile lies.
//
// Four neighbouring columns of a row are one 32-bit word, and the words of the 16 rows follow each other: 64 bytes, the
// width of the widest register. An int8 tile is 8 of these for columns 0-3, 4-7 and so on. An int4 tile is 4 of them:
// the low halves of the bytes are columns 0-15, the high halves columns 16-31.
#pragma once

#include "layout.h"

namespace medchat {

constexpr size_t kWordColumns = 4;
constexpr size_t kStripeBytes = kBlockRows * kWordColumns;

// The byte of a tile that holds `row`, `column`, and by how many bits it is shifted there.
struct TilePlace {
    size_t byte;
    int shift;
};

inline TilePlace tile_place(int bits, size_t row, size_t column) {
    const bool upper = bits == 4 && column >= kGroupColumns / 2;
    const size_t within = upper ? column - kGroupColumns / 2 : column;
    const size_t stripe = within / kWordColumns;
    return {stripe * kStripeBytes + row * kWordColumns + within % kWordColumns, upper ? 4 : 0};
}

inline int tile_integer(int bits, const uint8_t* tile, size_t row, size_t column) {
    const TilePlace place = tile_place(bits, row, column);
    const int mask = (1 << bits) - 1;
    return ((tile[place.byte] >> place.shift) & mask) - stored_offset(bits);
}

inline void set_tile_integer(int bits, uint8_t* tile, size_t row, size_t column, int integer) {
    const TilePlace place = tile_place(bits, row, column);
    const int mask = ((1 << bits) - 1) << place.shift;
    const int stored = (integer + stored_offset(bits)) << place.shift;
    tile[place.byte] = static_cast<uint8_t>((tile[place.byte] & ~mask) | (stored & mask));
}

}  // namespace medchat
