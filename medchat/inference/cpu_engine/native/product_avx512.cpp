// AVX-512 with VNNI: a register holds one stripe, four columns of sixteen rows, and one instruction multiplies it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "product.h"
#include "tile.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni")))
#define AVX512_INLINE AVX512 inline __attribute__((always_inline))

namespace medchat {
namespace {

// How many tokens share one reading of the weights: as many as leave registers for their sums.
constexpr size_t kManyTokens = 6;
// A single token is bound by memory; the hardware's own prefetching is too timid for that. The second cache can wait for
// more lines than the first; further ahead the next page is more often one that the CPU has yet to look up.
constexpr size_t kAheadBytes = 2048;

// The whole sums of the sixteen rows of one tile for some tokens, the planes of the activations apart.
template <size_t Tokens, bool Precise>
struct TileSums {
    __m512i high[Tokens];
    __m512i middle[Tokens];
    __m512i low[Tokens];

    AVX512_INLINE void clear() {
        for (size_t t = 0; t < Tokens; ++t) high[t] = middle[t] = low[t] = _mm512_setzero_si512();
    }

    // Adds the product of a stripe of unsigned integers with the activations of columns `word * 4` and on.
    AVX512_INLINE void add(__m512i stripe, const TokenGroups (&at)[Tokens], size_t word) {
        for (size_t t = 0; t < Tokens; ++t) {
            high[t] = _mm512_dpbusd_epi32(high[t], stripe, word_of(at[t].first->high, word));
            middle[t] = _mm512_dpbusd_epi32(middle[t], stripe, word_of(at[t].first->middle, word));
            if (Precise) low[t] = _mm512_dpbusd_epi32(low[t], stripe, word_of(at[t].low->low, word));
        }
    }

    AVX512_INLINE static __m512i word_of(const int8_t* activations, size_t word) {
        int32_t four;
        __builtin_memcpy(&four, activations + word * kWordColumns, sizeof four);
        return _mm512_set1_epi32(four);
    }

    // Together, as if the integers had been stored with their sign.
    AVX512_INLINE __m512 sum(size_t t, TokenGroups at, int offset) const {
        const __m512i both = _mm512_add_epi32(_mm512_slli_epi32(high[t], 8), middle[t]);
        const __m512i upper = _mm512_sub_epi32(both, _mm512_set1_epi32(at.first->upper_sum * offset));
        if (!Precise) return _mm512_mul_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(kUpperUnit));
        const __m512i lower = _mm512_sub_epi32(low[t], _mm512_set1_epi32(at.low->sum * offset));
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(kUpperUnit), _mm512_cvtepi32_ps(lower));
    }
};

template <int Bits, size_t Tokens, bool Precise>
AVX512_INLINE void add_tile(TileSums<Tokens, Precise>& sums, const uint8_t* tile, const TokenGroups (&at)[Tokens]) {
    constexpr size_t stripes = kBlockRows * kGroupColumns * Bits / 8 / kStripeBytes;
    const __m512i halves = _mm512_set1_epi8(15);
    for (size_t stripe = 0; stripe < stripes; ++stripe) {
        const __m512i bytes = _mm512_loadu_si512(tile + stripe * kStripeBytes);
        if (Tokens == 1) _mm_prefetch(reinterpret_cast<const char*>(tile + stripe * kStripeBytes + kAheadBytes), _MM_HINT_T1);
        if (Bits == 8) {
            sums.add(bytes, at, stripe);
        } else {
            sums.add(_mm512_and_si512(bytes, halves), at, stripe);
            sums.add(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), halves), at, stripe + stripes);
        }
    }
}

template <int Bits, size_t Tokens, bool Precise>
AVX512 void multiply_block(const Product& product, size_t block, size_t first_token) {
    const PackedMatrix& matrix = product.matrix;
    const size_t groups = matrix.groups();
    const uint8_t* tile = matrix.integers + block * groups * matrix.tile_bytes();
    const uint16_t* scales = matrix.scales + block * groups * kBlockRows;
    BlockOutputs outputs(product, block);
    __m512 totals[Tokens];
    TokenGroups at[Tokens];
    for (size_t t = 0; t < Tokens; ++t) {
        totals[t] = _mm512_loadu_ps(outputs.totals);
        at[t] = product.activations.token(first_token + t);
    }
    for (size_t g = 0; g < groups; ++g, tile += matrix.tile_bytes(), scales += kBlockRows) {
        TileSums<Tokens, Precise> sums;
        sums.clear();
        add_tile<Bits, Tokens, Precise>(sums, tile, at);
        const __m512 of_weights = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
        for (size_t t = 0; t < Tokens; ++t) {
            const __m512 scale = _mm512_mul_ps(of_weights, _mm512_set1_ps(at[t].first->scale));
            totals[t] = _mm512_fmadd_ps(sums.sum(t, at[t], stored_offset(Bits)), scale, totals[t]);
            at[t].first += at[t].stride;
            if (Precise) at[t].low += at[t].stride;
        }
    }
    for (size_t t = 0; t < Tokens; ++t) {
        _mm512_storeu_ps(outputs.totals, totals[t]);
        outputs.store(product, block, first_token + t);
    }
}

template <int Bits, bool Precise>
AVX512 void multiply_blocks(const Product& product, size_t first_block, size_t last_block) {
    const size_t tokens = product.activations.tokens();
    size_t token = 0;
    for (; token + kManyTokens <= tokens; token += kManyTokens) {
        for (size_t block = first_block; block < last_block; ++block) {
            multiply_block<Bits, kManyTokens, Precise>(product, block, token);
        }
    }
    for (; token < tokens; ++token) {
        for (size_t block = first_block; block < last_block; ++block) multiply_block<Bits, 1, Precise>(product, block, token);
    }
}

}  // namespace

void product_avx512(const Product& product, size_t first_block, size_t last_block) {
    const bool eight = product.matrix.bits == 8;
    if (product.activations.precise()) {
        (eight ? multiply_blocks<8, true> : multiply_blocks<4, true>)(product, first_block, last_block);
    } else {
        (eight ? multiply_blocks<8, false> : multiply_blocks<4, false>)(product, first_block, last_block);
    }
}

}  // namespace medchat

#endif
