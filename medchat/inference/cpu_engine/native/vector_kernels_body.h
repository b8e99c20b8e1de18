// The kernels of vector_kernels.h, once for all instruction sets. Included by the .cpp file of each of them, in a
// namespace of its own where `Lanes` is sixteen floats and KERNEL what a function needs to use its instructions.
// Every operation and its order is fixed, so the instruction sets give the same bits.

constexpr float kLowestExponent = -87.0f, kHighestExponent = 88.0f;
constexpr size_t kChunkRegisters = kChunkTokens / Lanes::kCount;

// Reads the first `count` of up to sixteen values, zeros behind them.
KERNEL Lanes load_some(const float* from, size_t count) {
    if (count >= Lanes::kCount) return Lanes::load(from);
    float padded[Lanes::kCount] = {};
    std::memcpy(padded, from, count * sizeof(float));
    return Lanes::load(padded);
}

KERNEL void store_some(Lanes lanes, size_t count, float* to) {
    if (count >= Lanes::kCount) return lanes.store(to);
    float padded[Lanes::kCount];
    lanes.store(padded);
    std::memcpy(to, padded, count * sizeof(float));
}

KERNEL float sum_of(Lanes lanes) {
    float values[Lanes::kCount];
    lanes.store(values);
    for (size_t half = Lanes::kCount / 2; half > 0; half /= 2) {
        for (size_t i = 0; i < half; ++i) values[i] += values[i + half];
    }
    return values[0];
}

// e to the power of x, to a few units in the last place; x is held between -87 and 88, so nothing overflows.
KERNEL Lanes exponential(Lanes x) {
    const Lanes rounder = Lanes::all(12582912.0f);
    x = x.most(Lanes::all(kLowestExponent)).least(Lanes::all(kHighestExponent));
    const Lanes whole = x.fused(Lanes::all(1.44269504f), rounder).minus(rounder);
    // ln 2 in two parts, the first of so few bits that its multiples are exact.
    x = whole.fused(Lanes::all(-0.693359375f), x);
    x = whole.fused(Lanes::all(2.12194440e-4f), x);
    Lanes sum = Lanes::all(1.9875691500e-4f);
    for (float coefficient : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
        sum = sum.fused(x, Lanes::all(coefficient));
    }
    sum = sum.times(x).fused(x, x).plus(Lanes::all(1.0f));
    return sum.times(whole.power_of_two());
}

KERNEL Lanes times_sigmoid(Lanes values, Lanes of) {
    const Lanes one = Lanes::all(1.0f);
    return values.over(one.plus(exponential(Lanes::all(0.0f).minus(of))));
}

// ------------------------------------------------------------------ norms, residuals, activation functions

KERNEL float mean_of(const float* values, size_t width) {
    Lanes sum = Lanes::all(0.0f);
    for (size_t i = 0; i < width; i += Lanes::kCount) sum = sum.plus(load_some(values + i, width - i));
    return sum_of(sum) / static_cast<float>(width);
}

// The mean of (value - centre)^2.
KERNEL float mean_square(const float* values, float centre, size_t width) {
    const Lanes shift = Lanes::all(centre);
    Lanes sum = Lanes::all(0.0f);
    size_t i = 0;
    for (; i + Lanes::kCount <= width; i += Lanes::kCount) {
        const Lanes distance = Lanes::load(values + i).minus(shift);
        sum = distance.fused(distance, sum);
    }
    float total = sum_of(sum);
    for (; i < width; ++i) total += (values[i] - centre) * (values[i] - centre);
    return total / static_cast<float>(width);
}

KERNEL void normalise(
    const float* values, NormKind kind, const Norm& norm, float epsilon, size_t width, float* normalised) {
    const float centre = kind == kLayerNorm ? mean_of(values, width) : 0.0f;
    const Lanes factor = Lanes::all(1.0f / std::sqrt(mean_square(values, centre, width) + epsilon));
    for (size_t i = 0; i < width; i += Lanes::kCount) {
        const size_t left = width - i;
        const Lanes scaled = load_some(values + i, left).minus(Lanes::all(centre)).times(factor);
        Lanes result = scaled.times(load_some(norm.weight + i, left));
        if (norm.bias != nullptr) result = result.plus(load_some(norm.bias + i, left));
        store_some(result, left, normalised + i);
    }
}

KERNEL void add_scaled(const float* values, float scale, size_t count, float* sums) {
    const Lanes factor = Lanes::all(scale);
    for (size_t i = 0; i < count; i += Lanes::kCount) {
        const size_t left = count - i;
        store_some(load_some(values + i, left).fused(factor, load_some(sums + i, left)), left, sums + i);
    }
}

KERNEL void gate_silu(const float* values, size_t count, float* gates) {
    for (size_t i = 0; i < count; i += Lanes::kCount) {
        const size_t left = count - i;
        const Lanes gate = load_some(gates + i, left);
        store_some(times_sigmoid(gate, gate).times(load_some(values + i, left)), left, gates + i);
    }
}

// The tanh form: x * (1 + tanh(u)) / 2 is x times the sigmoid of 2 u.
KERNEL void gelu(size_t count, float* values) {
    const Lanes twice_root = Lanes::all(2.0f * 0.79788456f), cubic = Lanes::all(0.044715f);
    for (size_t i = 0; i < count; i += Lanes::kCount) {
        const size_t left = count - i;
        const Lanes x = load_some(values + i, left);
        const Lanes inner = x.times(x).times(x).fused(cubic, x);
        store_some(times_sigmoid(x, inner.times(twice_root)), left, values + i);
    }
}

KERNEL void rotate(const float* cosines, const float* sines, size_t pairs, float* components) {
    for (size_t i = 0; i < pairs; i += Lanes::kCount) {
        const size_t left = pairs - i;
        const Lanes cosine = load_some(cosines + i, left), sine = load_some(sines + i, left);
        const Lanes first = load_some(components + i, left), second = load_some(components + pairs + i, left);
        store_some(first.times(cosine).minus(second.times(sine)), left, components + i);
        store_some(second.times(cosine).plus(first.times(sine)), left, components + pairs + i);
    }
}

#include "low_rank_body.h"

// ------------------------------------------------------------------ attention

template <typename Element>
KERNEL void store_as(const float* key, const float* value, size_t head_width, size_t place, CachedHead head) {
    Element* keys = reinterpret_cast<Element*>(head.keys) + place;
    Element* values = reinterpret_cast<Element*>(head.values) + place * padded_width(head_width);
    for (size_t i = 0; i < head_width; i += Lanes::kCount) {
        Element components[Lanes::kCount];
        load_some(key + i, head_width - i).store(components);
        for (size_t j = 0; j < Lanes::kCount && i + j < head_width; ++j) keys[(i + j) * kChunkTokens] = components[j];
        load_some(value + i, head_width - i).store(values + i);
    }
}

KERNEL void store(const float* key, const float* value, size_t head_width, bool half, size_t place, CachedHead head) {
    if (half) {
        store_as<uint16_t>(key, value, head_width, place, head);
    } else {
        store_as<float>(key, value, head_width, place, head);
    }
}

// What one query has gathered from the chunks so far: the largest score, and sums of exp(score - largest), alone and
// times the values.
struct Gathered {
    float scaled_query[kMostHeadWidth];
    float weighted[kMostHeadWidth];
    float weights[kChunkTokens];
    float largest;
    float total;
    // What the sums of the chunks before are multiplied with, now that a larger score was found.
    float fade;
};

KERNEL void begin(const Attention& attention, const AttentionQuery& query, Gathered& gathered) {
    for (size_t i = 0; i < attention.head_width; ++i) gathered.scaled_query[i] = query.query[i] * attention.scale;
    std::memset(gathered.weighted, 0, padded_width(attention.head_width) * sizeof(float));
    gathered.largest = -std::numeric_limits<float>::infinity();
    gathered.total = 0.0f;
}

// Puts the scores of all tokens of a chunk into `weights`.
template <typename Element, size_t Queries>
KERNEL void score_chunk(const Element* keys, size_t head_width, Gathered* gathered) {
    Lanes sums[Queries][kChunkRegisters];
    for (auto& of_query : sums) {
        for (Lanes& sum : of_query) sum = Lanes::all(0.0f);
    }
    for (size_t i = 0; i < head_width; ++i, keys += kChunkTokens) {
        for (size_t part = 0; part < kChunkRegisters; ++part) {
            const Lanes components = Lanes::load(keys + part * Lanes::kCount);
            for (size_t q = 0; q < Queries; ++q) {
                sums[q][part] = components.fused(Lanes::all(gathered[q].scaled_query[i]), sums[q][part]);
            }
        }
    }
    for (size_t q = 0; q < Queries; ++q) {
        for (size_t part = 0; part < kChunkRegisters; ++part) sums[q][part].store(gathered[q].weights + part * Lanes::kCount);
    }
}

// Turns the scores of the first `count` tokens of a chunk into weights, the others into zeros.
KERNEL void weigh_chunk(float slope, size_t first, size_t visible, Gathered& gathered) {
    const size_t count = visible <= first ? 0 : visible - first < kChunkTokens ? visible - first : kChunkTokens;
    const float before = gathered.largest;
    for (size_t i = 0; i < count; ++i) {
        if (slope != 0.0f) gathered.weights[i] -= slope * static_cast<float>(visible - 1 - first - i);
        if (!(gathered.weights[i] <= gathered.largest)) gathered.largest = gathered.weights[i];
    }
    const Lanes largest = Lanes::all(gathered.largest);
    for (size_t i = 0; i < kChunkTokens; i += Lanes::kCount) {
        exponential(Lanes::load(gathered.weights + i).minus(largest)).store(gathered.weights + i);
    }
    for (size_t i = count; i < kChunkTokens; ++i) gathered.weights[i] = 0.0f;
    float fade[Lanes::kCount];
    exponential(Lanes::all(before).minus(largest)).store(fade);
    gathered.fade = count == 0 ? 1.0f : fade[0];
    Lanes sum = Lanes::all(0.0f);
    for (size_t i = 0; i < kChunkTokens; i += Lanes::kCount) sum = sum.plus(Lanes::load(gathered.weights + i));
    gathered.total = gathered.total * gathered.fade + sum_of(sum);
}

// Adds the values of the first `count` tokens of a chunk, `Registers` registers of their components at a time.
template <typename Element, size_t Queries, size_t Registers>
KERNEL void add_values(const Element* values, size_t width, size_t count, Gathered* gathered) {
    for (size_t component = 0; component < width; component += Registers * Lanes::kCount) {
        Lanes sums[Queries][Registers];
        for (size_t q = 0; q < Queries; ++q) {
            const Lanes fade = Lanes::all(gathered[q].fade);
            for (size_t r = 0; r < Registers; ++r) {
                sums[q][r] = Lanes::load(gathered[q].weighted + component + r * Lanes::kCount).times(fade);
            }
        }
        for (size_t token = 0; token < count; ++token) {
            for (size_t r = 0; r < Registers; ++r) {
                const Lanes value = Lanes::load(values + token * width + component + r * Lanes::kCount);
                for (size_t q = 0; q < Queries; ++q) {
                    sums[q][r] = value.fused(Lanes::all(gathered[q].weights[token]), sums[q][r]);
                }
            }
        }
        for (size_t q = 0; q < Queries; ++q) {
            for (size_t r = 0; r < Registers; ++r) sums[q][r].store(gathered[q].weighted + component + r * Lanes::kCount);
        }
    }
}

template <typename Element, size_t Queries>
KERNEL void attend_as(const Attention& attention) {
    Gathered gathered[Queries];
    size_t seen = 0;
    for (size_t q = 0; q < Queries; ++q) {
        begin(attention, attention.queries[q], gathered[q]);
        if (attention.queries[q].visible > seen) seen = attention.queries[q].visible;
    }
    const size_t width = padded_width(attention.head_width);
    for (size_t first = 0; first < seen; first += kChunkTokens) {
        const CachedHead head = attention.cache->head(attention.layer, attention.key_head, first / kChunkTokens);
        score_chunk<Element, Queries>(reinterpret_cast<const Element*>(head.keys), attention.head_width, gathered);
        for (size_t q = 0; q < Queries; ++q) {
            weigh_chunk(attention.slope, first, attention.queries[q].visible, gathered[q]);
        }
        const size_t count = seen - first < kChunkTokens ? seen - first : kChunkTokens;
        const Element* values = reinterpret_cast<const Element*>(head.values);
        if (width % (4 * Lanes::kCount) == 0) {
            add_values<Element, Queries, 4>(values, width, count, gathered);
        } else {
            add_values<Element, Queries, 1>(values, width, count, gathered);
        }
    }
    for (size_t q = 0; q < Queries; ++q) {
        const float inverse = 1.0f / gathered[q].total;
        for (size_t i = 0; i < attention.head_width; ++i) {
            attention.queries[q].output[i] = gathered[q].weighted[i] * inverse;
        }
    }
}

template <size_t Queries>
KERNEL void attend_together(const Attention& attention) {
    if (attention.cache_is_half) {
        attend_as<uint16_t, Queries>(attention);
    } else {
        attend_as<float, Queries>(attention);
    }
}

KERNEL void attend(const Attention& attention) {
    if (attention.count == kQueriesTogether) return attend_together<kQueriesTogether>(attention);
    for (size_t q = 0; q < attention.count; ++q) {
        Attention alone = attention;
        alone.count = 1;
        alone.queries[0] = attention.queries[q];
        attend_together<1>(alone);
    }
}

// ------------------------------------------------------------------ choosing a token

KERNEL float largest(const float* values, size_t count) {
    Lanes most = Lanes::all(values[0]);
    size_t i = 0;
    for (; i + Lanes::kCount <= count; i += Lanes::kCount) most = most.most(Lanes::load(values + i));
    float found[Lanes::kCount];
    most.store(found);
    for (float one : found) found[0] = one > found[0] ? one : found[0];
    for (; i < count; ++i) found[0] = values[i] > found[0] ? values[i] : found[0];
    return found[0];
}

// So many values are added in float before their sum is added in double.
constexpr size_t kAddedAtOnce = 8 * Lanes::kCount;

KERNEL double exponentials(const float* values, size_t count, float largest, float divisor, float* terms) {
    const Lanes shift = Lanes::all(largest), under = Lanes::all(divisor);
    double total = 0.0;
    for (size_t first = 0; first < count; first += kAddedAtOnce) {
        const size_t end = count - first < kAddedAtOnce ? count : first + kAddedAtOnce;
        Lanes sum = Lanes::all(0.0f);
        for (size_t i = first; i < end; i += Lanes::kCount) {
            const Lanes found = exponential(load_some(values + i, end - i).minus(shift).over(under));
            float some[Lanes::kCount] = {};
            store_some(found, end - i, some);
            if (terms != nullptr) store_some(found, end - i, terms + i);
            sum = sum.plus(Lanes::load(some));
        }
        total += static_cast<double>(sum_of(sum));
    }
    return total;
}

const VectorKernels kKernels{
    normalise, add_scaled, inner_products, add_rows, gate_silu, gelu, rotate, store, attend, largest, exponentials};
