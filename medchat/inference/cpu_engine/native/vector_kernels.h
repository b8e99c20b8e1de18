// All of a decoder that is no product of matrices: norms, rotations, attention, activation functions.
//
// One set an instruction set. All of them give the same bits: vector_kernels_body.h.
#pragma once

#include "decoder_shape.h"
#include "key_value_cache.h"

namespace medchat {

// Queries of one head of one sequence that read the cache together. More of them share the reading of keys and values;
// what each of them gets does not depend on that.
constexpr size_t kQueriesTogether = 4;

struct AttentionQuery {
    const float* query;
    float* output;
    // How many tokens it sees: those at the beginning of the cache.
    size_t visible;
};

struct Attention {
    const KeyValueCache* cache;
    size_t layer;
    size_t key_head;
    size_t head_width;
    bool cache_is_half;
    // What the scores are multiplied with, and what each step away from the last visible token takes off them.
    float scale;
    float slope;
    size_t count;
    AttentionQuery queries[kQueriesTogether];
};

// Rows of equal length, one every `stride` floats, and a weight for each.
struct WeightedRows {
    const float* first;
    size_t stride;
    size_t count;
    const float* weights;
};

struct VectorKernels {
    void (*normalise)(const float* values, NormKind kind, const Norm& norm, float epsilon, size_t width, float* normalised);
    // sums += scale * values
    void (*add_scaled)(const float* values, float scale, size_t count, float* sums);
    // The inner products of `width` values with each of `count` rows.
    void (*inner_products)(const float* values, size_t width, const float* rows, size_t count, float* products);
    // sums += weight * row, row by row, for their first `count` columns
    void (*add_rows)(WeightedRows rows, size_t count, float* sums);
    // gates = silu(gates) * values
    void (*gate_silu)(const float* values, size_t count, float* gates);
    void (*gelu)(size_t count, float* values);
    // Turns `pairs` pairs: component j with component j + pairs.
    void (*rotate)(const float* cosines, const float* sines, size_t pairs, float* components);
    // Writes one token's key and value of one head to a place in a chunk.
    void (*store)(const float* key, const float* value, size_t head_width, bool half, size_t place, CachedHead head);
    void (*attend)(const Attention& attention);
    // The largest of `count` values, at least one.
    float (*largest)(const float* values, size_t count);
    // The sum of exp((value - largest) / divisor), to a few units in the last place of a float; each of the terms too, unless
    // `terms` is null.
    double (*exponentials)(const float* values, size_t count, float largest, float divisor, float* terms);
};

extern const VectorKernels kScalarVectorKernels;
#if defined(__x86_64__)
extern const VectorKernels kAvx2VectorKernels;
extern const VectorKernels kAvx512VectorKernels;
#endif

}  // namespace medchat
