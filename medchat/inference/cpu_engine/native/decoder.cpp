#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "activations.h"
#include "instruction_sets.h"
#include "multiply.h"
#include "vector_kernels.h"

namespace medchat {
namespace {

// So many tokens pass through the products of a layer together: a long prompt must not take memory for all of its
// feed-forward at once.
constexpr size_t kSlabTokens = 512;

// Some neighbouring tokens.
struct Slab {
    size_t first;
    size_t count;
};

std::vector<Slab> slabs_of(size_t tokens) {
    std::vector<Slab> slabs;
    for (size_t first = 0; first < tokens; first += kSlabTokens) {
        slabs.push_back({first, std::min(kSlabTokens, tokens - first)});
    }
    return slabs;
}

// A linear and where its results go.
struct Target {
    const Linear& linear;
    float* outputs;
};

class ForwardPass {
  public:
    ForwardPass(const Decoder& decoder, const Step& step);
    bool run();

  private:
    void normalise(const Norm& norm, Slab slab);
    void multiply_all(std::initializer_list<Target> targets, const float* inputs);
    void project_queries(const DecoderLayer& layer, Slab slab);
    void place_keys(size_t layer, Slab slab);
    void place_token(size_t layer, size_t token);
    void look_back(size_t layer, Slab slab);
    void look_back(size_t layer, size_t head, Slab queries, Slab slab);
    void add_to_residual(const Linear& branch, const float* inputs, size_t width, Slab slab);
    void feed_forward(const DecoderLayer& layer, Slab slab);
    void finish();

    float* row(std::vector<float>& rows, size_t token) const { return rows.data() + token * width_; }
    std::vector<Slab> queries_together(Slab slab) const;

    const Decoder& decoder_;
    const DecoderShape& shape_;
    const Step& step_;
    const VectorKernels& kernels_;
    const ProductKernel product_;
    Phases phases_;
    const size_t width_;
    const size_t inner_;
    // How many floats lie from one head's query (key, value) to the next, and from one token's to the next.
    const bool by_head_;
    const size_t query_stride_;
    const size_t key_stride_;
    // Of all tokens.
    std::vector<float> states_;
    std::vector<float> normalised_;
    std::vector<float> queries_;
    std::vector<float> keys_;
    std::vector<float> values_;
    // Of the tokens of a slab.
    Activations activations_;
    std::vector<float> coefficients_;
    std::vector<float> attended_;
    std::vector<float> branch_;
    std::vector<float> gates_;
    std::vector<float> ups_;
};

ForwardPass::ForwardPass(const Decoder& decoder, const Step& step)
    : decoder_(decoder),
      shape_(decoder.shape),
      step_(step),
      kernels_(vector_kernels(step.set)),
      product_(product_kernel(step.set)),
      phases_(step.threads, step.cancelled),
      width_(static_cast<size_t>(shape_.width)),
      inner_(static_cast<size_t>(shape_.inner_width)),
      by_head_(shape_.query_layout == kByHead),
      query_stride_(by_head_ ? 3 * shape_.query_width() : shape_.query_width()),
      key_stride_(by_head_ ? query_stride_ : shape_.key_width()),
      states_(step.embeddings, step.embeddings + step.tokens * width_),
      normalised_(step.tokens * width_),
      queries_(step.tokens * query_stride_),
      keys_(by_head_ ? 0 : step.tokens * key_stride_),
      values_(by_head_ ? 0 : step.tokens * key_stride_),
      activations_(shape_.precise != 0) {
    const size_t slab = std::min(kSlabTokens, step.tokens);
    activations_.resize(slab, std::max({width_, inner_, shape_.query_width()}));
    attended_.resize(slab * shape_.query_width());
    branch_.resize(slab * width_);
    gates_.resize(shape_.feed_forward == kGatedSilu ? slab * inner_ : 0);
    ups_.resize(slab * inner_);
}

bool ForwardPass::run() {
    for (size_t number = 0; number < decoder_.layers.size() && !phases_.stopped(); ++number) {
        const DecoderLayer& layer = decoder_.layers[number];
        const std::vector<Slab> slabs = slabs_of(step_.tokens);
        // A token may see those behind it: all keys stand in the cache before any query is answered.
        for (Slab slab : slabs) {
            normalise(layer.norms[kBeforeAttention], slab);
            project_queries(layer, slab);
            place_keys(number, slab);
        }
        for (Slab slab : slabs) {
            look_back(number, slab);
            add_to_residual(layer.linears[kAttentionOutput], attended_.data(), shape_.query_width(), slab);
            feed_forward(layer, slab);
        }
    }
    finish();
    return !phases_.stopped();
}

// Normalises the states of a slab, and makes activations of them.
void ForwardPass::normalise(const Norm& norm, Slab slab) {
    activations_.resize(slab.count, width_);
    phases_.run(slab.count, [&](size_t index) {
        const size_t token = slab.first + index;
        float* normalised = row(normalised_, token);
        const NormKind kind = static_cast<NormKind>(shape_.norm);
        kernels_.normalise(row(states_, token), kind, norm, shape_.norm_epsilon, width_, normalised);
        activations_.quantise(index, normalised);
    });
}

// Multiplies `inputs`, the rows that the activations were made of, with matrices of as many columns.
void ForwardPass::multiply_all(std::initializer_list<Target> targets, const float* inputs) {
    size_t ranks = 0;
    for (const Target& target : targets) ranks += target.linear.low_rank.rank;
    coefficients_.resize(std::max(coefficients_.size(), ranks * activations_.tokens()));
    float* coefficients = coefficients_.data();
    std::vector<Product> products;
    for (const auto& [linear, outputs] : targets) {
        products.push_back({linear.matrix, activations_, linear.bias, outputs, linear.low_rank, coefficients});
        coefficients += linear.low_rank.rank * activations_.tokens();
    }
    multiply({product_, kernels_}, products, inputs, phases_);
}

void ForwardPass::project_queries(const DecoderLayer& layer, Slab slab) {
    const float* inputs = row(normalised_, slab.first);
    float* queries = queries_.data() + slab.first * query_stride_;
    if (by_head_) return multiply_all({{layer.linears[kQueryKeyValue], queries}}, inputs);
    float* keys = keys_.data() + slab.first * key_stride_;
    float* values = values_.data() + slab.first * key_stride_;
    const Linear* linears = layer.linears;
    multiply_all({{linears[kQuery], queries}, {linears[kKey], keys}, {linears[kValue], values}}, inputs);
}

void ForwardPass::place_keys(size_t layer, Slab slab) {
    phases_.run(slab.count, [&](size_t index) { place_token(layer, slab.first + index); });
}

// Rotates a token's queries and keys and writes its keys and values into the cache.
void ForwardPass::place_token(size_t layer, size_t token) {
    const size_t head_width = static_cast<size_t>(shape_.head_width), step = by_head_ ? 3 * head_width : head_width;
    float* queries = queries_.data() + token * query_stride_;
    float* keys = by_head_ ? queries + head_width : keys_.data() + token * key_stride_;
    const float* values = by_head_ ? queries + 2 * head_width : values_.data() + token * key_stride_;
    const size_t parts = shape_.positions == kRotary ? static_cast<size_t>(shape_.rotary_parts) : 0;
    const size_t pairs = parts == 0 ? 0 : head_width / 2 / parts;
    const size_t place = static_cast<size_t>(step_.places[token]);
    for (size_t part = 0; part < parts; ++part) {
        const float* cosines = step_.cosines + token * head_width / 2 + part * pairs;
        const float* sines = step_.sines + token * head_width / 2 + part * pairs;
        const size_t first = part * 2 * pairs;
        for (int32_t h = 0; h < shape_.heads; ++h) kernels_.rotate(cosines, sines, pairs, queries + h * step + first);
        for (int32_t h = 0; h < shape_.key_heads; ++h) kernels_.rotate(cosines, sines, pairs, keys + h * step + first);
    }
    for (size_t h = 0; h < static_cast<size_t>(shape_.key_heads); ++h) {
        const CachedHead head = step_.caches[token]->head(layer, h, place / kChunkTokens);
        const bool half = shape_.precise == 0;
        kernels_.store(keys + h * step, values + h * step, head_width, half, place % kChunkTokens, head);
    }
}

// The queries of a slab in groups that read one cache together.
std::vector<Slab> ForwardPass::queries_together(Slab slab) const {
    std::vector<Slab> groups;
    for (size_t token = slab.first; token < slab.first + slab.count; ++token) {
        const bool joins = !groups.empty() && groups.back().count < kQueriesTogether &&
                           step_.caches[token] == step_.caches[groups.back().first];
        if (joins) {
            ++groups.back().count;
        } else {
            groups.push_back({token, 1});
        }
    }
    return groups;
}

void ForwardPass::look_back(size_t layer, Slab slab) {
    const std::vector<Slab> groups = queries_together(slab);
    // Head by head, so that what several groups read stays near.
    phases_.run(groups.size() * static_cast<size_t>(shape_.heads), [&](size_t part) {
        look_back(layer, part / groups.size(), groups[part % groups.size()], slab);
    });
}

void ForwardPass::look_back(size_t layer, size_t head, Slab queries, Slab slab) {
    const size_t head_width = static_cast<size_t>(shape_.head_width), step = by_head_ ? 3 * head_width : head_width;
    Attention attention{};
    attention.cache = step_.caches[queries.first];
    attention.layer = layer;
    attention.key_head = head / static_cast<size_t>(shape_.heads / shape_.key_heads);
    attention.head_width = head_width;
    attention.cache_is_half = shape_.precise == 0;
    attention.scale = 1.0f / std::sqrt(static_cast<float>(head_width));
    attention.slope = shape_.positions == kLinearBias ? decoder_.slopes[head] : 0.0f;
    attention.count = queries.count;
    for (size_t q = 0; q < queries.count; ++q) {
        const size_t token = queries.first + q;
        attention.queries[q] = {
            queries_.data() + token * query_stride_ + head * step,
            attended_.data() + (token - slab.first) * shape_.query_width() + head * head_width,
            static_cast<size_t>(step_.visible[token])};
    }
    kernels_.attend(attention);
}

// Multiplies `inputs` [slab, width] with the last matrix of a branch and adds the residual to it: the new states.
void ForwardPass::add_to_residual(const Linear& branch, const float* inputs, size_t width, Slab slab) {
    activations_.resize(slab.count, width);
    phases_.run(slab.count, [&](size_t index) { activations_.quantise(index, inputs + index * width); });
    multiply_all({{branch, branch_.data()}}, inputs);
    phases_.run(slab.count, [&](size_t index) {
        float* states = row(states_, slab.first + index);
        const float* residual = shape_.residual_from_norm != 0 ? row(normalised_, slab.first + index) : states;
        float* sums = branch_.data() + index * width_;
        kernels_.add_scaled(residual, shape_.residual_scale, width_, sums);
        std::copy_n(sums, width_, states);
    });
}

void ForwardPass::feed_forward(const DecoderLayer& layer, Slab slab) {
    normalise(layer.norms[kBeforeFeedForward], slab);
    const bool gated = shape_.feed_forward == kGatedSilu;
    const Target up{layer.linears[kUp], ups_.data()};
    const float* inputs = row(normalised_, slab.first);
    if (gated) {
        multiply_all({{layer.linears[kGate], gates_.data()}, up}, inputs);
    } else {
        multiply_all({up}, inputs);
    }
    phases_.run(slab.count, [&](size_t index) {
        float* ups = ups_.data() + index * inner_;
        if (gated) {
            kernels_.gate_silu(ups, inner_, gates_.data() + index * inner_);
        } else {
            kernels_.gelu(inner_, ups);
        }
    });
    add_to_residual(layer.linears[kDown], gated ? gates_.data() : ups_.data(), inner_, slab);
}

// The results of the wanted tokens, of some of them at a time.
void ForwardPass::finish() {
    const bool has_head = decoder_.head.matrix.rows != 0;
    const size_t output_width = has_head ? decoder_.head.matrix.rows : width_;
    const NormKind kind = static_cast<NormKind>(shape_.norm);
    for (Slab slab : slabs_of(step_.wanted_count)) {
        activations_.resize(slab.count, width_);
        float* outputs = step_.outputs + slab.first * output_width;
        phases_.run(slab.count, [&](size_t index) {
            const size_t token = static_cast<size_t>(step_.wanted[slab.first + index]);
            // In a row, whichever tokens they are of: nothing else reads these any more.
            float* normalised = has_head ? row(normalised_, slab.first + index) : outputs + index * width_;
            kernels_.normalise(row(states_, token), kind, decoder_.final_norm, shape_.norm_epsilon, width_, normalised);
            if (has_head) activations_.quantise(index, normalised);
        });
        if (has_head) multiply_all({{decoder_.head, outputs}}, row(normalised_, slab.first));
    }
}

}  // namespace

bool run_step(const Decoder& decoder, const Step& step) {
    for (size_t token = 0; token < step.tokens; ++token) {
        step.caches[token]->prepare(static_cast<size_t>(step.places[token]));
    }
    return ForwardPass(decoder, step).run();
}

}  // namespace medchat
