#include "multiply.h"

#include <algorithm>

namespace medchat {
namespace {

// Blocks of one claim: enough claims for threads to even out, few enough weights to stay in the cache while
// the tokens of a long prompt pass over them.
constexpr size_t kClaimsPerThread = 8;
constexpr size_t kMostBlocks = 8;

size_t blocks_of_claim(const PackedMatrix& matrix, size_t threads) {
    return std::clamp(matrix.blocks() / (threads * kClaimsPerThread), size_t{1}, kMostBlocks);
}

size_t claims_of(const PackedMatrix& matrix, size_t threads) {
    return divided_up(matrix.blocks(), blocks_of_claim(matrix, threads));
}

}  // namespace

void multiply(ProductKernel kernel, std::initializer_list<Product> products, Phases& phases) {
    size_t claims = 0;
    for (const Product& product : products) claims += claims_of(product.matrix, phases.threads());
    phases.run(claims, [&](size_t claim) {
        const Product* product = products.begin();
        for (size_t own; claim >= (own = claims_of(product->matrix, phases.threads())); ++product) claim -= own;
        const size_t size = blocks_of_claim(product->matrix, phases.threads());
        kernel(*product, claim * size, std::min(product->matrix.blocks(), (claim + 1) * size));
    });
}

}  // namespace medchat
