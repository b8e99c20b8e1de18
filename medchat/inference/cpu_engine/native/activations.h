// Activations as 16-bit integers with one scale for every 32 of them, so that products are sums of whole numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "layout.h"

namespace medchat {

// One group: value = (256 * high + low) * scale. `sum` is that of the 32 integers 256 * high + low.
struct ActivationGroup {
    int8_t high[kGroupColumns];
    int8_t low[kGroupColumns];
    float scale;
    int32_t sum;
};

// The groups of one token: group `g` is at `first[g * stride]`.
struct TokenGroups {
    const ActivationGroup* first;
    size_t stride;
};

// The activations of some tokens. Columns beyond the matrix's are zero.
//
// Sixteen tokens lie together, group by group, so that what is multiplied at once is read in one go; the last ones may
// be fewer.
class Activations {
  public:
    // Makes room for `tokens` tokens of `columns` columns; throws std::bad_alloc.
    void resize(size_t tokens, size_t columns);

    // Quantises one token's `columns` values. Tokens are independent: any thread may take any of them.
    // A group with an infinity or NaN gets the scale NaN, so that no product hides it.
    void quantise(size_t token, const float* values);

    TokenGroups token(size_t index) const {
        const size_t first = index / kTogether * kTogether, width = width_at(first);
        return {groups_.data() + first * group_count_ + (index - first), width};
    }
    size_t tokens() const { return tokens_; }

    static constexpr size_t kTogether = 16;

  private:
    size_t width_at(size_t first) const { return tokens_ - first < kTogether ? tokens_ - first : kTogether; }

    std::vector<ActivationGroup> groups_;
    size_t tokens_ = 0;
    size_t columns_ = 0;
    size_t group_count_ = 0;
};

}  // namespace medchat
