#include "activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace medchat {
namespace {

// 127 * 256: the largest `upper` whose two bytes both fit a signed byte.
constexpr float kLargestUpper = 32512.0f;
// Groups smaller than this count as zero: the inverse of their scale would be infinite.
constexpr float kSmallest = 1e-30f;
constexpr uint32_t kInfinityBits = 0x7f800000u;
// Adding and subtracting this rounds to the nearest whole number, ties to even, below 2^22.
constexpr float kRounder = 12582912.0f;

// The largest magnitude of a group. Compared as integers, whose order is that of magnitudes and which puts
// infinity and NaN on top, whatever the order of the comparisons.
float largest_magnitude(const float* values) {
    uint32_t largest = 0;
    for (size_t i = 0; i < kGroupColumns; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        largest = std::max(largest, bits & 0x7fffffffu);
    }
    if (largest >= kInfinityBits) return std::numeric_limits<float>::quiet_NaN();
    float magnitude;
    std::memcpy(&magnitude, &largest, sizeof magnitude);
    return magnitude;
}

// What a whole number is without its lowest byte, which is taken as signed.
int32_t without_low_byte(int32_t whole) { return (whole + 128) >> 8; }

void quantise_group(const float* values, ActivationGroup& group, LowActivations* low) {
    std::memset(&group, 0, sizeof group);
    if (low != nullptr) std::memset(low, 0, sizeof *low);
    const float largest = largest_magnitude(values);
    if (!(largest >= kSmallest)) {
        if (std::isnan(largest)) group.scale = largest;
        return;
    }
    const float inverse = kLargestUpper / largest;
    for (size_t i = 0; i < kGroupColumns; ++i) {
        const float scaled = values[i] * inverse;
        const float most = (scaled + kRounder) - kRounder;
        int32_t upper = static_cast<int32_t>(most);
        if (low != nullptr) {
            // What is left is exact, and so is 256 times as much. 128 is one more of `upper`.
            const int32_t rest = static_cast<int32_t>(((scaled - most) * kUpperUnit + kRounder) - kRounder);
            const int32_t more = without_low_byte(rest);
            upper += more;
            low->low[i] = static_cast<int8_t>(rest - more * 256);
            low->sum += rest - more * 256;
        }
        group.high[i] = static_cast<int8_t>(without_low_byte(upper));
        group.middle[i] = static_cast<int8_t>(upper - without_low_byte(upper) * 256);
        group.upper_sum += upper;
    }
    group.scale = largest / kLargestUpper / kUpperUnit;
}

}  // namespace

void Activations::resize(size_t tokens, size_t columns) {
    tokens_ = tokens;
    columns_ = columns;
    group_count_ = divided_up(columns, kGroupColumns);
    groups_.resize(tokens * group_count_);
    if (precise_) low_.resize(tokens * group_count_);
}

void Activations::quantise(size_t token, const float* values) {
    const size_t first = token / kTogether * kTogether, width = width_at(first);
    const size_t place = first * group_count_ + (token - first);
    ActivationGroup* groups = groups_.data() + place;
    LowActivations* low = precise_ ? low_.data() + place : nullptr;
    const size_t whole = columns_ / kGroupColumns;
    for (size_t g = 0; g < whole; ++g) {
        quantise_group(values + g * kGroupColumns, groups[g * width], low == nullptr ? nullptr : low + g * width);
    }
    if (whole < group_count_) {
        float padded[kGroupColumns] = {};
        std::copy(values + whole * kGroupColumns, values + columns_, padded);
        quantise_group(padded, groups[whole * width], low == nullptr ? nullptr : low + whole * width);
    }
}

}  // namespace medchat
