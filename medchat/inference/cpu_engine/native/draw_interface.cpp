// What Python calls to draw a token (`medchat/inference/cpu_engine/draw.py`), which checks sizes and ranges before.
#include <new>

#include "exported.h"
#include "instruction_sets.h"
#include "token_draw.h"

using namespace medchat;

// Draws one of `count` tokens into `token`, or `kUndecided`. `words` and `used` are a generator's; they become what they are once
// it has made a uniform number for each token.
EXPORTED int medchat_draw(
    int set, const float* scores, size_t count, float temperature, double left_out, size_t kept, uint32_t* words,
    size_t* used, int64_t* token) {
    try {
        MersenneTwister random(words, *used);
        *token = draw_token({scores, count, temperature, left_out, kept}, vector_kernels(set), random);
        *used = random.use_up(count);
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
    return kDone;
}
