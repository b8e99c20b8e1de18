// AVX2: bytes are widened to 16 bits and multiplied with activations of 16; its 8-bit products would overflow.
#if defined(__x86_64__)

#include <immintrin.h>

#include "product.h"
#include "tile.h"

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE AVX2 inline __attribute__((always_inline))

namespace medchat {
namespace {

constexpr size_t kHalfRows = kBlockRows / 2;
constexpr size_t kHalfStripe = kStripeBytes / 2;

// A group's activations as 16-bit integers, in the order of its columns.
struct WideActivations {
    alignas(32) int16_t upper[kGroupColumns];
    alignas(32) int16_t low[kGroupColumns];

    AVX2_INLINE WideActivations(const ActivationGroup& group, const LowActivations* lows) {
        for (size_t i = 0; i < kGroupColumns; i += 16) {
            const __m256i high = _mm256_slli_epi16(widened(group.high + i), 8);
            store(upper + i, _mm256_add_epi16(high, widened(group.middle + i)));
            if (lows != nullptr) store(low + i, widened(lows->low + i));
        }
    }

    AVX2_INLINE static __m256i widened(const int8_t* bytes) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    }

    AVX2_INLINE static void store(int16_t* to, __m256i values) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), values);
    }

    // The four columns of a word, in each quarter of a register.
    AVX2_INLINE static __m256i word(const int16_t* columns, size_t index) {
        int64_t four;
        __builtin_memcpy(&four, columns + index * kWordColumns, sizeof four);
        return _mm256_set1_epi64x(four);
    }
};

// The whole sums of eight rows. Each row has two partial sums, of the first and the last two columns of its words:
// rows 0, 1, 4, 5 in `even`, rows 2, 3, 6, 7 in `odd`, which is how the bytes of a register are widened.
struct EightRows {
    __m256i even;
    __m256i odd;

    AVX2_INLINE void clear() { even = odd = _mm256_setzero_si256(); }

    AVX2_INLINE void add(__m256i some, __m256i others, __m256i activations) {
        even = _mm256_add_epi32(even, _mm256_madd_epi16(some, activations));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(others, activations));
    }

    // As floats, as if the integers had been stored with their sign: `offset` is what was added to them in all.
    AVX2_INLINE __m256 sums(int32_t offset) const {
        return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_hadd_epi32(even, odd), _mm256_set1_epi32(offset)));
    }
};

// Those of a half tile with the upper and the low activations.
struct HalfTileSums {
    EightRows upper;
    EightRows low;

    AVX2_INLINE void clear() {
        upper.clear();
        low.clear();
    }

    template <bool Precise>
    AVX2_INLINE void add(__m256i bytes, const WideActivations& activations, size_t word) {
        const __m256i zero = _mm256_setzero_si256();
        const __m256i some = _mm256_unpacklo_epi8(bytes, zero), others = _mm256_unpackhi_epi8(bytes, zero);
        upper.add(some, others, WideActivations::word(activations.upper, word));
        if (Precise) low.add(some, others, WideActivations::word(activations.low, word));
    }
};

template <int Bits, bool Precise>
AVX2_INLINE __m256 tile_sums(const uint8_t* half_tile, const WideActivations& activations, int32_t upper_sum, int32_t low_sum) {
    constexpr size_t stripes = kBlockRows * kGroupColumns * Bits / 8 / kStripeBytes;
    const __m256i halves = _mm256_set1_epi8(15);
    HalfTileSums sums;
    sums.clear();
    for (size_t stripe = 0; stripe < stripes; ++stripe) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half_tile + stripe * kStripeBytes));
        if (Bits == 8) {
            sums.add<Precise>(bytes, activations, stripe);
        } else {
            sums.add<Precise>(_mm256_and_si256(bytes, halves), activations, stripe);
            sums.add<Precise>(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), halves), activations, stripe + stripes);
        }
    }
    const __m256 upper = sums.upper.sums(upper_sum * stored_offset(Bits));
    return _mm256_fmadd_ps(upper, _mm256_set1_ps(kUpperUnit), sums.low.sums(low_sum * stored_offset(Bits)));
}

template <int Bits, bool Precise>
AVX2 void multiply_block(const Product& product, size_t block, size_t token) {
    const PackedMatrix& matrix = product.matrix;
    const size_t groups = matrix.groups();
    const uint8_t* tile = matrix.integers + block * groups * matrix.tile_bytes();
    const uint16_t* scales = matrix.scales + block * groups * kBlockRows;
    const TokenGroups of_token = product.activations.token(token);
    const ActivationGroup* group = of_token.first;
    BlockOutputs outputs(product, block);
    __m256 totals[2] = {_mm256_loadu_ps(outputs.totals), _mm256_loadu_ps(outputs.totals + kHalfRows)};
    for (size_t g = 0; g < groups; ++g, group += of_token.stride, tile += matrix.tile_bytes(), scales += kBlockRows) {
        const LowActivations* low = Precise ? of_token.low + g * of_token.stride : nullptr;
        const WideActivations activations(*group, low);
        const int32_t low_sum = Precise ? low->sum : 0;
        for (size_t half = 0; half < 2; ++half) {
            const __m256 sum = tile_sums<Bits, Precise>(tile + half * kHalfStripe, activations, group->upper_sum, low_sum);
            const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + half * kHalfRows));
            const __m256 scale = _mm256_mul_ps(_mm256_cvtph_ps(stored), _mm256_set1_ps(group->scale));
            totals[half] = _mm256_fmadd_ps(sum, scale, totals[half]);
        }
    }
    _mm256_storeu_ps(outputs.totals, totals[0]);
    _mm256_storeu_ps(outputs.totals + kHalfRows, totals[1]);
    outputs.store(product, block, token);
}

template <int Bits, bool Precise>
AVX2 void multiply_blocks(const Product& product, size_t first_block, size_t last_block) {
    for (size_t token = 0; token < product.activations.tokens(); ++token) {
        for (size_t block = first_block; block < last_block; ++block) {
            multiply_block<Bits, Precise>(product, block, token);
        }
    }
}

}  // namespace

void product_avx2(const Product& product, size_t first_block, size_t last_block) {
    const bool eight = product.matrix.bits == 8;
    if (product.activations.precise()) {
        (eight ? multiply_blocks<8, true> : multiply_blocks<4, true>)(product, first_block, last_block);
    } else {
        (eight ? multiply_blocks<8, false> : multiply_blocks<4, false>)(product, first_block, last_block);
    }
}

}  // namespace medchat

#endif
