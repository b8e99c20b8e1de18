// The Mersenne Twister MT19937, as the generators of torch and of the C++ library have it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace medchat {

// Gives words by their number, counted from where a generator stands. Numbers that are asked for must not fall; those between
// are passed over, which takes a fraction of what making each of them does.
class MersenneTwister {
  public:
    static constexpr size_t kWords = 624, kTogether = 128;

    // `words` are the generator's own, of which `used` were used, and are changed.
    MersenneTwister(uint32_t* words, size_t used) : words_(words), used_(used) {}

    // A number in [0, 1) of the 53 lower bits of words 2 * number and 2 * number + 1, the first of which is the upper half.
    double uniform(size_t number) {
        const uint32_t upper = word(2 * number);
        return of_words(upper, word(2 * number + 1));
    }

    // Writes `count` uniform numbers, at most `kTogether`, beginning with `first`: sooner than one by one.
    void uniforms(size_t first, size_t count, double* numbers) {
        uint32_t made[2 * kTogether];
        for (size_t done = 0; done < 2 * count;) {
            reach(2 * first + done);
            const size_t at = used_ + 2 * first + done - passed_;
            const size_t end = 2 * count - done < kWords - at ? at + 2 * count - done : kWords;
            for (size_t i = at; i < end; ++i) made[done + i - at] = tempered(words_[i]);
            done += end - at;
        }
        for (size_t i = 0; i < count; ++i) numbers[i] = of_words(made[2 * i], made[2 * i + 1]);
    }

    // Takes the first `count` uniform numbers, at least 1, for used; returns how many of the words are.
    size_t use_up(size_t count) {
        reach(2 * count - 1);
        return used_ + 2 * count - passed_;
    }

  private:
    static constexpr size_t kAhead = 397;

    uint32_t word(size_t number) {
        reach(number);
        return tempered(words_[used_ + number - passed_]);
    }

    static uint32_t tempered(uint32_t word) {
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c5680u;
        word ^= (word << 15) & 0xefc60000u;
        return word ^ (word >> 18);
    }

    // Both parts become doubles as signed numbers, which every CPU does side by side; all of it is exact.
    static double of_words(uint32_t upper, uint32_t lower) {
        const double upper_bits = static_cast<double>(static_cast<int32_t>(upper & 0x1fffffu));
        const double lower_bits = static_cast<double>(static_cast<int32_t>(lower ^ 0x80000000u)) + 0x1p31;
        return (upper_bits * 0x1p32 + lower_bits) * 0x1p-53;
    }

    void reach(size_t number) {
        for (; used_ + number - passed_ >= kWords; passed_ += kWords) make_words();
    }

    static uint32_t twisted(uint32_t upper, uint32_t lower) {
        const uint32_t mixed = (upper & 0x80000000u) | (lower & 0x7fffffffu);
        return (mixed >> 1) ^ ((lower & 1u) * 0x9908b0dfu);
    }

    // Replaces the words by the next ones.
    void make_words() {
        size_t i = 0;
        for (; i < kWords - kAhead; ++i) words_[i] = words_[i + kAhead] ^ twisted(words_[i], words_[i + 1]);
        for (; i + 1 < kWords; ++i) words_[i] = words_[i + kAhead - kWords] ^ twisted(words_[i], words_[i + 1]);
        words_[i] = words_[kAhead - 1] ^ twisted(words_[i], words_[0]);
    }

    uint32_t* words_;
    size_t used_;
    size_t passed_ = 0;
};

}  // namespace medchat
