// Sixteen floats at once in one register of AVX-512; what each member does: lanes_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace medchat::avx512 {

#define AVX512_LANES __attribute__((target("avx512f,avx512bw,avx512vnni"), always_inline))

struct Lanes {
    static constexpr size_t kCount = 16;
    __m512 values;

    AVX512_LANES static inline Lanes all(float value) { return {_mm512_set1_ps(value)}; }
    AVX512_LANES static inline Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
    AVX512_LANES static inline Lanes load(const uint16_t* halves) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)))};
    }
    AVX512_LANES inline void store(float* to) const { _mm512_storeu_ps(to, values); }
    AVX512_LANES inline void store(uint16_t* halves) const {
        const __m256i rounded = _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves), rounded);
    }

    AVX512_LANES inline Lanes plus(Lanes o) const { return {_mm512_add_ps(values, o.values)}; }
    AVX512_LANES inline Lanes minus(Lanes o) const { return {_mm512_sub_ps(values, o.values)}; }
    AVX512_LANES inline Lanes times(Lanes o) const { return {_mm512_mul_ps(values, o.values)}; }
    AVX512_LANES inline Lanes over(Lanes o) const { return {_mm512_div_ps(values, o.values)}; }
    AVX512_LANES inline Lanes most(Lanes o) const { return {_mm512_max_ps(values, o.values)}; }
    AVX512_LANES inline Lanes least(Lanes o) const { return {_mm512_min_ps(values, o.values)}; }
    AVX512_LANES inline Lanes fused(Lanes factor, Lanes summand) const {
        return {_mm512_fmadd_ps(values, factor.values, summand.values)};
    }
    AVX512_LANES inline Lanes power_of_two() const {
        const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(values), _mm512_set1_epi32(127));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
    }
};

}  // namespace medchat::avx512
