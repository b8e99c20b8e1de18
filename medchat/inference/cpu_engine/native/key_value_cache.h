// The keys and values of what one sequence has read. It grows by whole chunks, so that nothing is copied.
//
// A copy has the same chunks, until one of the two writes to a chunk: that one gets a chunk of its own first.
//
// A chunk holds 64 tokens of every layer and head. In it the keys of a head lie component by component, the values token
// by token: scores are then sums over components, and outputs sums over tokens, of whole registers.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "decoder_shape.h"

namespace medchat {

constexpr size_t kChunkTokens = 64;
// Components of a head are padded with zeros to whole registers of sixteen.
constexpr size_t kLaneCount = 16;
// The widest head that kernels have room for.
constexpr size_t kMostHeadWidth = 256;

constexpr size_t padded_width(size_t head_width) { return divided_up(head_width, kLaneCount) * kLaneCount; }

// A head's part of one chunk, in float16 or float32: keys [padded width, 64], values [64, padded width].
struct CachedHead {
    uint8_t* keys;
    uint8_t* values;
};

class KeyValueCache {
  public:
    explicit KeyValueCache(const DecoderShape& shape)
        : key_heads_(static_cast<size_t>(shape.key_heads)),
          block_bytes_(padded_width(static_cast<size_t>(shape.head_width)) * kChunkTokens * (shape.precise ? 4 : 2)),
          chunk_bytes_(static_cast<size_t>(shape.layers) * key_heads_ * 2 * block_bytes_) {}

    // Makes room for `tokens` tokens in all; what is stored stays where it is. Throws std::bad_alloc.
    void reserve(size_t tokens) {
        while (room() < tokens) {
            // Zeros: what is beyond the last token is multiplied with a weight of zero.
            chunks_.push_back(owned(std::calloc(chunk_bytes_, 1)));
        }
    }

    // To be called before a place is written to. Throws std::bad_alloc.
    void prepare(size_t place) {
        Chunk& shared = chunks_[place / kChunkTokens];
        if (shared.use_count() == 1) return;
        Chunk own = owned(std::malloc(chunk_bytes_));
        std::memcpy(own.get(), shared.get(), chunk_bytes_);
        shared = std::move(own);
    }

    size_t room() const { return chunks_.size() * kChunkTokens; }

    CachedHead head(size_t layer, size_t head, size_t chunk) const {
        uint8_t* keys = chunks_[chunk].get() + (layer * key_heads_ + head) * 2 * block_bytes_;
        return {keys, keys + block_bytes_};
    }

  private:
    using Chunk = std::shared_ptr<uint8_t>;

    static Chunk owned(void* memory) {
        if (memory == nullptr) throw std::bad_alloc();
        return Chunk(static_cast<uint8_t*>(memory), &std::free);
    }

    size_t key_heads_;
    size_t block_bytes_;
    size_t chunk_bytes_;
    std::vector<Chunk> chunks_;
};

}  // namespace medchat
