// What distinguishes the decoders that the engine computes: every family is one value of `DecoderShape`
// (docs/specs/engine.md, "Whole decoders"). The numbers are those of `medchat/inference/cpu_engine/decoder.py`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"
#include "low_rank.h"

namespace medchat {

enum NormKind : int32_t { kRootMeanSquare = 0, kLayerNorm = 1 };

// How a token's place enters its attention. Rotated: component j of a head's `rotary_parts` equal parts turns with
// component j + half of that part. With a linear bias (ALiBi) no part is rotated.
enum PositionKind : int32_t { kRotary = 0, kLinearBias = 1 };

// Queries, keys and values are products of three matrices, or of one whose rows are [q k v] of one head after the other.
enum QueryLayout : int32_t { kThreeMatrices = 0, kByHead = 1 };

// down(silu(gate) * up), or down(gelu(up)) with the tanh form of GELU.
enum FeedForwardKind : int32_t { kGatedSilu = 0, kPlainGelu = 1 };

// A residual is `residual_scale` times the input of the norm before the branch, or times its output. `precise` is for models
// in float32: activations of 24 bits and a cache in float32, in place of 16 bits and float16.
struct DecoderShape {
    int32_t layers;
    int32_t width;
    int32_t heads;
    int32_t key_heads;
    int32_t head_width;
    int32_t inner_width;
    int32_t norm;
    int32_t positions;
    int32_t rotary_parts;
    int32_t query_layout;
    int32_t feed_forward;
    int32_t residual_from_norm;
    int32_t precise;
    float norm_epsilon;
    float residual_scale;

    size_t query_width() const { return static_cast<size_t>(heads) * head_width; }
    size_t key_width() const { return static_cast<size_t>(key_heads) * head_width; }
};

struct Linear {
    PackedMatrix matrix{};
    const float* bias = nullptr;
    LowRank low_rank{};
};

struct Norm {
    const float* weight = nullptr;
    const float* bias = nullptr;
};

enum LinearRole : int32_t { kQuery, kKey, kValue, kAttentionOutput, kGate, kUp, kDown, kLinearRoles };
// The one matrix of `kByHead`.
constexpr LinearRole kQueryKeyValue = kQuery;

enum NormRole : int32_t { kBeforeAttention, kBeforeFeedForward, kNormRoles };

struct DecoderLayer {
    Linear linears[kLinearRoles];
    Norm norms[kNormRoles];
};

}  // namespace medchat
