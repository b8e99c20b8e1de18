// Sixteen floats at once in two registers of AVX2; what each member does: lanes_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace medchat::avx2 {

#define AVX2_LANES __attribute__((target("avx2,fma,f16c"), always_inline))

struct Lanes {
    static constexpr size_t kCount = 16;
    __m256 low, high;

    AVX2_LANES static inline Lanes all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
    AVX2_LANES static inline Lanes load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
    AVX2_LANES static inline Lanes load(const uint16_t* halves) {
        const __m128i* at = reinterpret_cast<const __m128i*>(halves);
        return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
    }
    AVX2_LANES inline void store(float* to) const {
        _mm256_storeu_ps(to, low);
        _mm256_storeu_ps(to + 8, high);
    }
    AVX2_LANES inline void store(uint16_t* halves) const {
        __m128i* at = reinterpret_cast<__m128i*>(halves);
        _mm_storeu_si128(at, _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
        _mm_storeu_si128(at + 1, _mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
    }

    AVX2_LANES inline Lanes plus(Lanes o) const { return {_mm256_add_ps(low, o.low), _mm256_add_ps(high, o.high)}; }
    AVX2_LANES inline Lanes minus(Lanes o) const { return {_mm256_sub_ps(low, o.low), _mm256_sub_ps(high, o.high)}; }
    AVX2_LANES inline Lanes times(Lanes o) const { return {_mm256_mul_ps(low, o.low), _mm256_mul_ps(high, o.high)}; }
    AVX2_LANES inline Lanes over(Lanes o) const { return {_mm256_div_ps(low, o.low), _mm256_div_ps(high, o.high)}; }
    AVX2_LANES inline Lanes most(Lanes o) const { return {_mm256_max_ps(low, o.low), _mm256_max_ps(high, o.high)}; }
    AVX2_LANES inline Lanes least(Lanes o) const { return {_mm256_min_ps(low, o.low), _mm256_min_ps(high, o.high)}; }
    AVX2_LANES inline Lanes fused(Lanes factor, Lanes summand) const {
        return {_mm256_fmadd_ps(low, factor.low, summand.low), _mm256_fmadd_ps(high, factor.high, summand.high)};
    }
    AVX2_LANES inline Lanes power_of_two() const { return {power_of_two(low), power_of_two(high)}; }

  private:
    AVX2_LANES static inline __m256 power_of_two(__m256 whole) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
};

}  // namespace medchat::avx2
