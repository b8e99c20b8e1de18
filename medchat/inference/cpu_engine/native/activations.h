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

// The activations of some tokens, each `groups` groups. Columns beyond the matrix's are zero.
class Activations {
  public:
    // Makes room for `tokens` tokens of `columns` columns; throws std::bad_alloc.
    void resize(size_t tokens, size_t columns);

    // Quantises one token's `columns` values. Tokens are independent: any thread may take any of them.
    // A group with an infinity or NaN gets the scale NaN, so that no product hides it.
    void quantise(size_t token, const float* values);

    const ActivationGroup* token(size_t index) const { return groups_.data() + index * group_count_; }
    size_t tokens() const { return tokens_; }

  private:
    std::vector<ActivationGroup> groups_;
    size_t tokens_ = 0;
    size_t columns_ = 0;
    size_t group_count_ = 0;
};

}  // namespace medchat
