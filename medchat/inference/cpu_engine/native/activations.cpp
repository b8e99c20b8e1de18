#include "activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace medchat {
namespace {

// 127 * 256: the largest integer whose halves both fit a signed byte.
constexpr float kLargest = 32512.0f;
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

void quantise_group(const float* values, ActivationGroup& group) {
    const float largest = largest_magnitude(values);
    if (!(largest >= kSmallest)) {
        std::memset(&group, 0, sizeof group);
        if (std::isnan(largest)) group.scale = largest;
        return;
    }
    const float inverse = kLargest / largest;
    int32_t sum = 0;
    for (size_t i = 0; i < kGroupColumns; ++i) {
        const int32_t whole = static_cast<int32_t>((values[i] * inverse + kRounder) - kRounder);
        const int32_t high = (whole + 128) >> 8;
        group.high[i] = static_cast<int8_t>(high);
        group.low[i] = static_cast<int8_t>(whole - high * 256);
        sum += whole;
    }
    group.scale = largest / kLargest;
    group.sum = sum;
}

}  // namespace

void Activations::resize(size_t tokens, size_t columns) {
    tokens_ = tokens;
    columns_ = columns;
    group_count_ = divided_up(columns, kGroupColumns);
    groups_.resize(tokens * group_count_);
}

void Activations::quantise(size_t token, const float* values) {
    const size_t first = token / kTogether * kTogether, width = width_at(first);
    ActivationGroup* groups = groups_.data() + first * group_count_ + (token - first);
    const size_t whole = columns_ / kGroupColumns;
    for (size_t g = 0; g < whole; ++g) quantise_group(values + g * kGroupColumns, groups[g * width]);
    if (whole < group_count_) {
        float padded[kGroupColumns] = {};
        std::copy(values + whole * kGroupColumns, values + columns_, padded);
        quantise_group(padded, groups[whole * width]);
    }
}

}  // namespace medchat
