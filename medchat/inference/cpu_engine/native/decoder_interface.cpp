// What Python calls for whole decoders (`medchat/inference/cpu_engine/decoder.py`). Shapes, sizes and ranges are checked
// there before a pointer is made; nothing here throws across the boundary.
#include <new>

#include "decoder.h"
#include "exported.h"
#include "instruction_sets.h"

using namespace medchat;

static Linear& linear_at(Decoder* decoder, int layer, int role) {
    return layer < 0 ? decoder->head : decoder->layers[static_cast<size_t>(layer)].linears[role];
}

// Null where memory ran out.
EXPORTED Decoder* medchat_decoder_create(const DecoderShape* shape) {
    try {
        return new Decoder(*shape);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

EXPORTED void medchat_decoder_destroy(Decoder* decoder) { delete decoder; }

// Names a matrix of the decoder by its layer and role (`LinearRole`), or the head with layer -1. `bias` may be null.
EXPORTED void medchat_decoder_set_linear(
    Decoder* decoder, int layer, int role, int bits, size_t rows, size_t columns, const uint8_t* packed,
    const float* bias) {
    linear_at(decoder, layer, role) = {matrix_at(bits, rows, columns, packed), bias};
}

// What is added to the products of a matrix that was named: `down` [rank, its columns], `up` [rank, its rows].
EXPORTED void medchat_decoder_set_low_rank(
    Decoder* decoder, int layer, int role, size_t rank, const float* down, const float* up) {
    linear_at(decoder, layer, role).low_rank = {rank, down, up};
}

// Likewise for a norm; the last one has layer -1.
EXPORTED void medchat_decoder_set_norm(Decoder* decoder, int layer, int role, const float* weight, const float* bias) {
    Norm& norm = layer < 0 ? decoder->final_norm : decoder->layers[static_cast<size_t>(layer)].norms[role];
    norm = {weight, bias};
}

// Copies the slopes of `kLinearBias`, one a head.
EXPORTED int medchat_decoder_set_slopes(Decoder* decoder, const float* slopes) {
    try {
        decoder->slopes.assign(slopes, slopes + decoder->shape.heads);
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
    return kDone;
}

// An empty cache for sequences of `decoder`; null where memory ran out.
EXPORTED KeyValueCache* medchat_cache_create(const Decoder* decoder) {
    return new (std::nothrow) KeyValueCache(decoder->shape);
}

// A cache that holds what `cache` holds; null where memory ran out.
EXPORTED KeyValueCache* medchat_cache_copy(const KeyValueCache* cache) {
    try {
        return new KeyValueCache(*cache);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

EXPORTED void medchat_cache_destroy(KeyValueCache* cache) { delete cache; }

// Makes room for `tokens` tokens in all. What was stored stays, whatever comes of it.
EXPORTED int medchat_cache_reserve(KeyValueCache* cache, size_t tokens) {
    try {
        cache->reserve(tokens);
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
    return kDone;
}

// Writes keys and values of one layer, [key_heads, head_width] each, to a place that `cache` has room for.
EXPORTED int medchat_cache_store(
    const Decoder* decoder, KeyValueCache* cache, size_t layer, size_t place, const float* keys, const float* values) {
    try {
        cache->prepare(place);
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
    const DecoderShape& shape = decoder->shape;
    const size_t width = static_cast<size_t>(shape.head_width);
    for (size_t h = 0; h < static_cast<size_t>(shape.key_heads); ++h) {
        const CachedHead head = cache->head(layer, h, place / kChunkTokens);
        vector_kernels(kScalar).store(
            keys + h * width, values + h * width, width, shape.precise == 0, place % kChunkTokens, head);
    }
    return kDone;
}

// Reads `step`. Stopped: the caller asked for it.
EXPORTED int medchat_decoder_step(const Decoder* decoder, const Step* step) {
    try {
        return run_step(*decoder, *step) ? kDone : kStopped;
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}
