// AVX2: bytes are widened to 16 bits and multiplied with whole activations; its 8-bit products would overflow.
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
struct WholeActivations {
    alignas(32) int16_t columns[kGroupColumns];

    AVX2_INLINE explicit WholeActivations(const ActivationGroup& group) {
        for (size_t i = 0; i < kGroupColumns; i += 16) {
            const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(group.high + i));
            const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(group.low + i));
            const __m256i whole =
                _mm256_add_epi16(_mm256_slli_epi16(_mm256_cvtepi8_epi16(high), 8), _mm256_cvtepi8_epi16(low));
            _mm256_store_si256(reinterpret_cast<__m256i*>(columns + i), whole);
        }
    }

    // The four columns of a word, in each quarter of a register.
    AVX2_INLINE __m256i word(size_t index) const {
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

    AVX2_INLINE void add(__m256i bytes, __m256i activations) {
        const __m256i zero = _mm256_setzero_si256();
        even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_unpacklo_epi8(bytes, zero), activations));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_unpackhi_epi8(bytes, zero), activations));
    }

    AVX2_INLINE __m256i sums() const { return _mm256_hadd_epi32(even, odd); }
};

template <int Bits>
AVX2_INLINE __m256i tile_sums(const uint8_t* half_tile, const WholeActivations& activations) {
    constexpr size_t stripes = kBlockRows * kGroupColumns * Bits / 8 / kStripeBytes;
    const __m256i halves = _mm256_set1_epi8(15);
    EightRows rows;
    rows.clear();
    for (size_t stripe = 0; stripe < stripes; ++stripe) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half_tile + stripe * kStripeBytes));
        if (Bits == 8) {
            rows.add(bytes, activations.word(stripe));
        } else {
            rows.add(_mm256_and_si256(bytes, halves), activations.word(stripe));
            rows.add(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), halves), activations.word(stripe + stripes));
        }
    }
    return rows.sums();
}

template <int Bits>
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
        const WholeActivations activations(*group);
        const __m256i offset = _mm256_set1_epi32(group->sum * stored_offset(Bits));
        for (size_t half = 0; half < 2; ++half) {
            const __m256i sum = tile_sums<Bits>(tile + half * kHalfStripe, activations);
            const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + half * kHalfRows));
            const __m256 scale = _mm256_mul_ps(_mm256_cvtph_ps(stored), _mm256_set1_ps(group->scale));
            totals[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(sum, offset)), scale, totals[half]);
        }
    }
    _mm256_storeu_ps(outputs.totals, totals[0]);
    _mm256_storeu_ps(outputs.totals + kHalfRows, totals[1]);
    outputs.store(product, block, token);
}

}  // namespace

void product_avx2(const Product& product, size_t first_block, size_t last_block) {
    for (size_t token = 0; token < product.activations.tokens(); ++token) {
        for (size_t block = first_block; block < last_block; ++block) {
            if (product.matrix.bits == 8) {
                multiply_block<8>(product, block, token);
            } else {
                multiply_block<4>(product, block, token);
            }
        }
    }
}

}  // namespace medchat

#endif
