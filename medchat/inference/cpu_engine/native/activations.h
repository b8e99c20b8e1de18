// Activations as integers of 24 or 16 bits with one scale for every 32 of them, so that products are sums of whole numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "layout.h"

namespace medchat {

// One group: value = (256 * upper + low) * scale, where upper = 256 * high + middle. `upper_sum` is that of the 32 integers
// `upper`.
struct ActivationGroup {
    int8_t high[kGroupColumns];
    int8_t middle[kGroupColumns];
    float scale;
    int32_t upper_sum;
};

// The `low` of a group and their sum. Apart from the rest, which is all that 16 bits have.
struct LowActivations {
    int8_t low[kGroupColumns];
    int32_t sum;
};

// What `low` counts less than `upper`.
constexpr float kUpperUnit = 256.0f;

// The groups of one token: group `g` is at `first[g * stride]`, its low activations, if any, at `low[g * stride]`.
struct TokenGroups {
    const ActivationGroup* first;
    const LowActivations* low;
    size_t stride;
};

// The activations of some tokens. Columns beyond the matrix's are zero.
//
// Sixteen tokens lie together, group by group, so that what is multiplied at once is read in one go; the last ones may
// be fewer.
class Activations {
  public:
    // `precise` activations have 24 bits.
    explicit Activations(bool precise) : precise_(precise) {}

    // Makes room for `tokens` tokens of `columns` columns; throws std::bad_alloc.
    void resize(size_t tokens, size_t columns);

    // Quantises one token's `columns` values. Tokens are independent: any thread may take any of them.
    // A group with an infinity or NaN gets the scale NaN, so that no product hides it.
    void quantise(size_t token, const float* values);

    TokenGroups token(size_t index) const {
        const size_t first = index / kTogether * kTogether, width = width_at(first);
        const size_t place = first * group_count_ + (index - first);
        return {groups_.data() + place, precise_ ? low_.data() + place : nullptr, width};
    }
    size_t tokens() const { return tokens_; }
    bool precise() const { return precise_; }

    static constexpr size_t kTogether = 16;

  private:
    size_t width_at(size_t first) const { return tokens_ - first < kTogether ? tokens_ - first : kTogether; }

    bool precise_;
    std::vector<ActivationGroup> groups_;
    std::vector<LowActivations> low_;
    size_t tokens_ = 0;
    size_t columns_ = 0;
    size_t group_count_ = 0;
};

}  // namespace medchat
