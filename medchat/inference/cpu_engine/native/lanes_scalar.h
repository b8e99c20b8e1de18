// Sixteen floats at once, in plain C++: what the other two must equal bit by bit.
//
// Each instruction set has such a `Lanes`, and the kernels of vector_kernels_body.h are written once in terms of it.
// Every operation is one rounding of IEEE 754, so that all of them compute the same.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "half.h"

namespace medchat::scalar {

struct Lanes {
    static constexpr size_t kCount = 16;
    float values[kCount];

    static Lanes all(float value) {
        Lanes made;
        for (float& one : made.values) one = value;
        return made;
    }
    static Lanes load(const float* from) {
        Lanes made;
        std::memcpy(made.values, from, sizeof made.values);
        return made;
    }
    static Lanes load(const uint16_t* halves) {
        Lanes made;
        for (size_t i = 0; i < kCount; ++i) made.values[i] = half_to_float(halves[i]);
        return made;
    }
    void store(float* to) const { std::memcpy(to, values, sizeof values); }
    void store(uint16_t* halves) const {
        for (size_t i = 0; i < kCount; ++i) halves[i] = float_to_half(values[i]);
    }

    Lanes plus(Lanes other) const {
        for (size_t i = 0; i < kCount; ++i) other.values[i] = values[i] + other.values[i];
        return other;
    }
    Lanes minus(Lanes other) const {
        for (size_t i = 0; i < kCount; ++i) other.values[i] = values[i] - other.values[i];
        return other;
    }
    Lanes times(Lanes other) const {
        for (size_t i = 0; i < kCount; ++i) other.values[i] = values[i] * other.values[i];
        return other;
    }
    Lanes over(Lanes other) const {
        for (size_t i = 0; i < kCount; ++i) other.values[i] = values[i] / other.values[i];
        return other;
    }
    // The second where one of the two is NaN.
    Lanes most(Lanes other) const {
        for (size_t i = 0; i < kCount; ++i) other.values[i] = values[i] > other.values[i] ? values[i] : other.values[i];
        return other;
    }
    Lanes least(Lanes other) const {
        for (size_t i = 0; i < kCount; ++i) other.values[i] = values[i] < other.values[i] ? values[i] : other.values[i];
        return other;
    }
    // this * factor + summand, rounded once.
    Lanes fused(Lanes factor, Lanes summand) const {
        for (size_t i = 0; i < kCount; ++i) summand.values[i] = std::fma(values[i], factor.values[i], summand.values[i]);
        return summand;
    }
    // Two to the power of whole numbers from -126 to 127.
    Lanes power_of_two() const {
        Lanes made;
        for (size_t i = 0; i < kCount; ++i) {
            const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(values[i]) + 127) << 23;
            std::memcpy(made.values + i, &bits, sizeof bits);
        }
        return made;
    }
};

}  // namespace medchat::scalar
