// AMX: sixteen tokens with sixteen rows at once, in registers that hold whole tiles. The tiles of a packed matrix lie
// as these registers take them. Fewer tokens than `kFewestTokens` are as fast one by one.
#include "product.h"

#if defined(MEDCHAT_AMX)

#include <immintrin.h>

#include <algorithm>

#include "tile.h"

#define AMX __attribute__((target("avx512f,avx512bw,avx512vnni,amx-tile,amx-int8")))
#define AMX_INLINE AMX inline __attribute__((always_inline))

namespace medchat {
namespace {

constexpr size_t kTileTokens = Activations::kTogether;
constexpr size_t kFewestTokens = 4;
constexpr size_t kStripes = kGroupColumns / kWordColumns;

// Which register holds what, for two blocks of rows; the intrinsics take these numbers as literals. The low plane of
// precise activations comes after the others, in the registers of the high one.
#define HIGH_SUMS 0
#define MIDDLE_SUMS 1
#define OTHER_HIGH_SUMS 2
#define OTHER_MIDDLE_SUMS 3
#define HIGH_ACTIVATIONS 4
#define MIDDLE_ACTIVATIONS 5
#define WEIGHTS 6
#define OTHER_WEIGHTS 7

// The shape of each register, as the CPU reads it.
struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    explicit TileShapes(size_t tokens) {
        for (size_t sums : {HIGH_SUMS, MIDDLE_SUMS, OTHER_HIGH_SUMS, OTHER_MIDDLE_SUMS}) {
            set(sums, tokens, kBlockRows * sizeof(int32_t));
        }
        for (size_t activations : {HIGH_ACTIVATIONS, MIDDLE_ACTIVATIONS}) set(activations, tokens, kGroupColumns);
        for (size_t weights : {WEIGHTS, OTHER_WEIGHTS}) set(weights, kStripes, kStripeBytes);
    }

    void set(size_t index, size_t row_count, size_t bytes) {
        rows[index] = static_cast<uint8_t>(row_count);
        row_bytes[index] = static_cast<uint16_t>(bytes);
    }
};

// The sums of a tile for each token, the planes of the activations apart.
struct TileSums {
    alignas(64) int32_t high[kTileTokens][kBlockRows];
    alignas(64) int32_t middle[kTileTokens][kBlockRows];
    alignas(64) int32_t low[kTileTokens][kBlockRows];
};

// Writes the eight stripes of a tile as signed bytes.
template <int Bits>
AMX_INLINE void spread_stripes(const uint8_t* tile, uint8_t* spread) {
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(stored_offset(Bits))), halves = _mm512_set1_epi8(15);
    constexpr size_t stripes = kStripes * Bits / 8;
    for (size_t stripe = 0; stripe < stripes; ++stripe) {
        const __m512i bytes = _mm512_loadu_si512(tile + stripe * kStripeBytes);
        uint8_t* to = spread + stripe * kStripeBytes;
        if (Bits == 8) {
            _mm512_store_si512(to, _mm512_sub_epi8(bytes, offset));
        } else {
            const __m512i low = _mm512_and_si512(bytes, halves);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), halves);
            _mm512_store_si512(to, _mm512_sub_epi8(low, offset));
            _mm512_store_si512(to + stripes * kStripeBytes, _mm512_sub_epi8(high, offset));
        }
    }
}

// Begins the products of the tiles of two blocks with the same activations: while one is being made, the other begins.
AMX_INLINE void multiply_tiles(const uint8_t* weights, const uint8_t* other_weights, const ActivationGroup* groups) {
    _tile_loadd(HIGH_ACTIVATIONS, groups->high, sizeof *groups);
    _tile_loadd(MIDDLE_ACTIVATIONS, groups->middle, sizeof *groups);
    _tile_loadd(WEIGHTS, weights, kStripeBytes);
    _tile_loadd(OTHER_WEIGHTS, other_weights, kStripeBytes);
    _tile_zero(HIGH_SUMS);
    _tile_zero(MIDDLE_SUMS);
    _tile_zero(OTHER_HIGH_SUMS);
    _tile_zero(OTHER_MIDDLE_SUMS);
    _tile_dpbssd(HIGH_SUMS, HIGH_ACTIVATIONS, WEIGHTS);
    _tile_dpbssd(MIDDLE_SUMS, MIDDLE_ACTIVATIONS, WEIGHTS);
    _tile_dpbssd(OTHER_HIGH_SUMS, HIGH_ACTIVATIONS, OTHER_WEIGHTS);
    _tile_dpbssd(OTHER_MIDDLE_SUMS, MIDDLE_ACTIVATIONS, OTHER_WEIGHTS);
}

AMX_INLINE void store_sums(TileSums& sums, TileSums& other) {
    _tile_stored(HIGH_SUMS, sums.high, sizeof sums.high[0]);
    _tile_stored(MIDDLE_SUMS, sums.middle, sizeof sums.middle[0]);
    _tile_stored(OTHER_HIGH_SUMS, other.high, sizeof other.high[0]);
    _tile_stored(OTHER_MIDDLE_SUMS, other.middle, sizeof other.middle[0]);
}

// The products of the same tiles with the low plane.
AMX_INLINE void multiply_low(const LowActivations* groups, TileSums& sums, TileSums& other) {
    _tile_loadd(HIGH_ACTIVATIONS, groups->low, sizeof *groups);
    _tile_zero(HIGH_SUMS);
    _tile_zero(OTHER_HIGH_SUMS);
    _tile_dpbssd(HIGH_SUMS, HIGH_ACTIVATIONS, WEIGHTS);
    _tile_dpbssd(OTHER_HIGH_SUMS, HIGH_ACTIVATIONS, OTHER_WEIGHTS);
    _tile_stored(HIGH_SUMS, sums.low, sizeof sums.low[0]);
    _tile_stored(OTHER_HIGH_SUMS, other.low, sizeof other.low[0]);
}

// One block of rows while its tiles are multiplied one after the other, for the tokens of one tile.
template <int Bits>
struct BlockInWork {
    const uint8_t* tiles;
    const uint16_t* scales;
    alignas(64) float totals[kTileTokens][kBlockRows];
    alignas(64) uint8_t spread[kStripes * kStripeBytes];
    TileSums sums[2];

    BlockInWork(const Product& product, size_t block, size_t tokens) {
        const PackedMatrix& matrix = product.matrix;
        tiles = matrix.integers + block * matrix.groups() * matrix.tile_bytes();
        scales = matrix.scales + block * matrix.groups() * kBlockRows;
        const BlockOutputs outputs(product, block);
        for (size_t t = 0; t < tokens; ++t) std::copy_n(outputs.totals, kBlockRows, totals[t]);
    }

    AMX_INLINE const uint8_t* stripes(size_t group) {
        spread_stripes<Bits>(tiles + group * (kBlockRows * kGroupColumns * Bits / 8), spread);
        return spread;
    }

    // Adds a group's sums to the totals of every token, as every other kernel does.
    template <bool Precise>
    AMX_INLINE void add_group(size_t group, const ActivationGroup* groups, size_t tokens) {
        const TileSums& of_group = sums[group % 2];
        const __m512 of_weights = _mm512_cvtph_ps(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + group * kBlockRows)));
        const __m512 unit = _mm512_set1_ps(kUpperUnit);
        for (size_t t = 0; t < tokens; ++t) {
            const __m512i high = _mm512_slli_epi32(_mm512_load_si512(of_group.high[t]), 8);
            const __m512 upper = _mm512_cvtepi32_ps(_mm512_add_epi32(high, _mm512_load_si512(of_group.middle[t])));
            const __m512 low = _mm512_cvtepi32_ps(_mm512_load_si512(of_group.low[t]));
            const __m512 sum = Precise ? _mm512_fmadd_ps(upper, unit, low) : _mm512_mul_ps(upper, unit);
            const __m512 scale = _mm512_mul_ps(of_weights, _mm512_set1_ps(groups[t].scale));
            _mm512_store_ps(totals[t], _mm512_fmadd_ps(sum, scale, _mm512_load_ps(totals[t])));
        }
    }

    void store(const Product& product, size_t block, size_t first_token, size_t tokens) const {
        BlockOutputs outputs(product, block);
        for (size_t t = 0; t < tokens; ++t) {
            std::copy_n(totals[t], kBlockRows, outputs.totals);
            outputs.store(product, block, first_token + t);
        }
    }
};

// `second` may be `first` again, where a last block is left over.
template <int Bits, bool Precise>
AMX void multiply_blocks(const Product& product, size_t first, size_t second, size_t first_token, size_t tokens) {
    BlockInWork<Bits> one(product, first, tokens), other(product, second, tokens);
    const TokenGroups of_token = product.activations.token(first_token);
    const size_t groups = product.matrix.groups();
    for (size_t g = 0; g <= groups; ++g) {
        const ActivationGroup* at = of_token.first + g * of_token.stride;
        if (g < groups) multiply_tiles(one.stripes(g), other.stripes(g), at);
        if (g > 0) {
            // The sums of the group before, while the products of this one are being made.
            one.template add_group<Precise>(g - 1, at - of_token.stride, tokens);
            other.template add_group<Precise>(g - 1, at - of_token.stride, tokens);
        }
        if (g == groups) break;
        store_sums(one.sums[g % 2], other.sums[g % 2]);
        if (Precise) multiply_low(of_token.low + g * of_token.stride, one.sums[g % 2], other.sums[g % 2]);
    }
    one.store(product, first, first_token, tokens);
    if (second != first) other.store(product, second, first_token, tokens);
}

template <int Bits, bool Precise>
AMX void multiply_rows(const Product& product, size_t first_block, size_t last_block) {
    const size_t all = product.activations.tokens();
    for (size_t token = 0; token < all; token += kTileTokens) {
        const size_t tokens = std::min(all - token, kTileTokens);
        const TileShapes shapes(tokens);
        _tile_loadconfig(&shapes);
        for (size_t block = first_block; block < last_block; block += 2) {
            multiply_blocks<Bits, Precise>(product, block, std::min(block + 1, last_block - 1), token, tokens);
        }
    }
    _tile_release();
}

}  // namespace

void product_amx(const Product& product, size_t first_block, size_t last_block) {
    const bool eight = product.matrix.bits == 8;
    if (product.activations.tokens() < kFewestTokens) {
        product_avx512(product, first_block, last_block);
    } else if (product.activations.precise()) {
        (eight ? multiply_rows<8, true> : multiply_rows<4, true>)(product, first_block, last_block);
    } else {
        (eight ? multiply_rows<8, false> : multiply_rows<4, false>)(product, first_block, last_block);
    }
}

}  // namespace medchat

#endif
