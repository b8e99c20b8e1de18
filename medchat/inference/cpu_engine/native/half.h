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

}  // namespace medchat
