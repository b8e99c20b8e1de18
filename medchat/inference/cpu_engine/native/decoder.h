// A decoder and one pass through it: from the embeddings of some tokens to logits, or to the states that a head takes.
#pragma once

#include <cstdint>
#include <vector>

#include "decoder_shape.h"
#include "key_value_cache.h"
#include "phases.h"

namespace medchat {

// Weights belong to the caller and outlive this.
struct Decoder {
    explicit Decoder(const DecoderShape& given) : shape(given), layers(static_cast<size_t>(given.layers)) {}

    DecoderShape shape;
    std::vector<DecoderLayer> layers;
    Norm final_norm;
    // Without one (`rows` is 0) the normalised states are what a pass returns.
    Linear head;
    // Of `kLinearBias`: one a head.
    std::vector<float> slopes;
};

// The tokens of one pass, of one sequence or of several. As in medchat/inference/cpu_engine/decoder.py.
struct Step {
    int32_t set;
    size_t threads;
    size_t tokens;
    // For each token: the cache of its sequence, where in it the token goes, and how many from its beginning it sees.
    // The tokens of one sequence stand together.
    KeyValueCache* const* caches;
    const int32_t* places;
    const int32_t* visible;
    // [tokens, width]; [tokens, head_width / 2] each, null where nothing is rotated.
    const float* embeddings;
    const float* cosines;
    const float* sines;
    // The tokens whose results are wanted, and room for these: [wanted_count, rows of the head, or width].
    const int32_t* wanted;
    size_t wanted_count;
    float* outputs;
    Cancelled cancelled;
};

// Returns whether it came to its end; otherwise the places of these tokens in their caches hold nothing of use.
// The caches have room for all places. Throws std::bad_alloc before anything is computed.
bool run_step(const Decoder& decoder, const Step& step);

}  // namespace medchat
