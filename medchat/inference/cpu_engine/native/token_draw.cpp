#include "token_draw.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace medchat {
namespace {

// What a sum of floats can lose for each term, half a unit in the last place of sixteen sums side by side, and a quotient.
constexpr double kSumError = 0x1p-28, kQuotientError = 1e-6;
// Scores that are compared at once.
constexpr size_t kCompared = 64;
constexpr size_t kNone = std::numeric_limits<size_t>::max();

// The tokens that may be drawn, in the order of the vocabulary.
struct Candidates {
    std::vector<size_t> places;
    // With the largest at zero, and divided.
    std::vector<float> scores;
    std::vector<float> weights;
    std::vector<double> uniform;
};

// The exponential value of a uniform one.
double exponential_value(double uniform) { return -std::log1p(-uniform); }

// The largest quotient of a weight and an exponential value, of those that were offered.
class Leader {
  public:
    void offer(size_t place, float weight, double uniform) {
        // The exponential value is never below the uniform one: most cannot lead, and need no logarithm.
        const double wide = static_cast<double>(weight);
        if (!(wide >= largest_ * (1.0 - 4.0 * kQuotientError) * uniform)) return;
        const double quotient = wide / exponential_value(uniform);
        second_ = std::max(second_, std::min(quotient, largest_));
        if (quotient > largest_) {
            largest_ = quotient;
            place_ = place;
        }
    }
    // `kNone` if a second place is as good as equal.
    size_t place() const { return second_ >= largest_ * (1.0 - 4.0 * kQuotientError) ? kNone : place_; }

  private:
    size_t place_ = kNone;
    double largest_ = 0.0, second_ = -1.0;
};

// The `kept`-th of the largest scores, from 1 to `count`.
float last_kept(const TokenDraw& draw, const VectorKernels& kernels) {
    if (draw.kept * kCompared > draw.count) {
        std::vector<float> scores(draw.scores, draw.scores + draw.count);
        const auto last = scores.begin() + static_cast<std::ptrdiff_t>(draw.kept - 1);
        std::nth_element(scores.begin(), last, scores.end(), std::greater<float>());
        return *last;
    }
    // The largest so far, the smallest of them in front.
    std::vector<float> largest(draw.kept, -std::numeric_limits<float>::infinity());
    for (size_t first = 0; first < draw.count; first += kCompared) {
        const size_t end = std::min(draw.count, first + kCompared);
        if (!(kernels.largest(draw.scores + first, end - first) > largest.front())) continue;
        for (size_t i = first; i < end; ++i) {
            if (!(draw.scores[i] > largest.front())) continue;
            std::pop_heap(largest.begin(), largest.end(), std::greater<float>());
            largest.back() = draw.scores[i];
            std::push_heap(largest.begin(), largest.end(), std::greater<float>());
        }
    }
    return largest.front();
}

class Drawing {
  public:
    Drawing(const TokenDraw& draw, const VectorKernels& kernels) : draw_(draw), kernels_(kernels) {
        largest_ = kernels.largest(draw.scores, draw.count);
        slack_ = 2.0 * kQuotientError + static_cast<double>(draw.count) * kSumError;
    }

    // With none left out every token may be drawn.
    int64_t among_all(MersenneTwister& random) const {
        constexpr size_t kTogether = MersenneTwister::kTogether;
        float weights[kTogether];
        double uniform[kTogether];
        Leader leader;
        for (size_t first = 0; first < draw_.count; first += kTogether) {
            const size_t count = std::min(kTogether, draw_.count - first);
            kernels_.exponentials(draw_.scores + first, count, largest_, draw_.temperature, weights);
            random.uniforms(first, count, uniform);
            for (size_t i = 0; i < count; ++i) leader.offer(first + i, weights[i], uniform[i]);
        }
        return leader.place() == kNone ? kUndecided : static_cast<int64_t>(leader.place());
    }

    int64_t among_some(MersenneTwister& random) {
        if (draw_.kept < draw_.count) {
            collect_kept();
        } else {
            collect_likely();
        }
        for (size_t place : some_.places) some_.uniform.push_back(random.uniform(place));
        std::vector<float> weights = some_.weights;
        while (true) {
            Leader leader;
            for (size_t i = 0; i < weights.size(); ++i) leader.offer(i, weights[i], some_.uniform[i]);
            const size_t best = leader.place();
            if (best == kNone) return kUndecided;
            if (draw_.left_out < 0.0 || surely_inside(best)) return static_cast<int64_t>(some_.places[best]);
            const float score = some_.scores[best];
            if (share_up_to(score, true) > draw_.left_out - slack_) return kUndecided;
            for (size_t i = 0; i < weights.size(); ++i) {
                if (some_.scores[i] <= score) weights[i] = 0.0f;
            }
        }
    }

  private:
    // With the largest at zero, and divided.
    float scaled(float score) const { return (score - largest_) / draw_.temperature; }

    // Finds what is kept: of the scores that are compared once they are divided, since that may make two of them equal.
    void collect_kept() {
        const float last = scaled(last_kept(draw_, kernels_));
        take([&](float score) { return scaled(score) >= last; });
        total_ = weigh();
    }

    // Finds all that may be drawn: what lies lower has less than a quarter together of what is left out.
    void collect_likely() {
        total_ = kernels_.exponentials(draw_.scores, draw_.count, largest_, draw_.temperature, nullptr);
        const double count = static_cast<double>(draw_.count);
        const bool any = !(draw_.left_out > 2.0 * slack_);
        const double lowest = any ? -std::numeric_limits<double>::infinity()
                                  : std::log(draw_.left_out / 4.0 * total_ / count);
        const double bound = static_cast<double>(largest_) + lowest * static_cast<double>(draw_.temperature);
        // A little lower: rounding to float must lose none.
        const float least = any ? -std::numeric_limits<float>::infinity()
                                : static_cast<float>(bound - std::abs(bound) * kQuotientError);
        take([&](float score) { return score >= least; });
        lower_ = total_ - weigh();
    }

    // Takes every score that is high enough: where one is, all larger ones are too.
    template <typename HighEnough>
    void take(const HighEnough& high_enough) {
        for (size_t first = 0; first < draw_.count; first += kCompared) {
            const size_t end = std::min(draw_.count, first + kCompared);
            if (!high_enough(kernels_.largest(draw_.scores + first, end - first))) continue;
            for (size_t i = first; i < end; ++i) {
                if (!high_enough(draw_.scores[i])) continue;
                some_.places.push_back(i);
                some_.scores.push_back(scaled(draw_.scores[i]));
            }
        }
    }

    // Gives all that were taken their weights; returns the sum.
    double weigh() {
        some_.weights.resize(some_.places.size());
        some_.uniform.reserve(some_.places.size());
        return kernels_.exponentials(some_.scores.data(), some_.scores.size(), 0.0f, 1.0f, some_.weights.data());
    }

    bool surely_inside(size_t best) const {
        const float score = some_.scores[best];
        // The likeliest stays, whatever it has.
        if (score == 0.0f && std::count(some_.scores.begin(), some_.scores.end(), 0.0f) == 1) return true;
        const double alone = static_cast<double>(some_.weights[best]) / total_;
        return share_up_to(score, false) + alone > draw_.left_out + slack_;
    }

    // The probability of all whose score is lower, or `equal`.
    double share_up_to(float score, bool equal) const {
        double sum = lower_;
        for (size_t i = 0; i < some_.scores.size(); ++i) {
            const bool counts = some_.scores[i] < score || (equal && some_.scores[i] == score);
            sum += counts ? static_cast<double>(some_.weights[i]) : 0.0;
        }
        return sum / total_;
    }

    const TokenDraw& draw_;
    const VectorKernels& kernels_;
    Candidates some_;
    float largest_;
    double slack_;
    double total_ = 0.0;
    // What those have together that are no candidates.
    double lower_ = 0.0;
};

}  // namespace

int64_t draw_token(const TokenDraw& draw, const VectorKernels& kernels, MersenneTwister& random) {
    Drawing drawing(draw, kernels);
    const bool all = draw.left_out < 0.0 && draw.kept >= draw.count;
    return all ? drawing.among_all(random) : drawing.among_some(random);
}

}  // namespace medchat
