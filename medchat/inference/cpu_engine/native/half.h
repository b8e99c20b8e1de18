// float16 <-> float32 without instructions for it: the scalar reference, and what is done once.
#pragma once

#include <cstdint>
#include <cstring>

namespace medchat {

// Exact for every finite float16, subnormal ones included; infinities and NaN stay what they are.
inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t rest = half & 0x7fffu;
    float value;
    if (rest < 0x0400u) {
        // Zero or subnormal: a whole number of 2^-24.
        value = static_cast<float>(rest) * 0x1p-24f;
    } else {
        const uint32_t exponent = rest >= 0x7c00u ? 0x7f800000u : ((rest >> 10) + 112u) << 23;
        const uint32_t bits = exponent | (rest & 0x03ffu) << 13;
        std::memcpy(&value, &bits, sizeof value);
    }
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Rounds to the nearest float16, ties to even, as the instruction does; beyond the largest it is infinity.
inline uint16_t float_to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    const uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (rest >> 13 & 0x03ffu));
    if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (rest < 0x38800000u) {
        // Below the smallest normal float16. Adding 0.5 leaves the multiple of 2^-24 in the lowest bits, rounded.
        float small;
        std::memcpy(&small, &rest, sizeof small);
        small += 0.5f;
        uint32_t shifted;
        std::memcpy(&shifted, &small, sizeof shifted);
        return static_cast<uint16_t>(sign | (shifted - 0x3f000000u));
    }
    const uint32_t odd = rest >> 13 & 1u;
    return static_cast<uint16_t>(sign | (rest - 0x38000000u + 0x0fffu + odd) >> 13);
}

}  // namespace medchat
