#include "multiply.h"

#include <algorithm>

namespace medchat {
namespace {

// Blocks of one claim: enough claims for threads to even out, few enough weights to stay in the cache while
// the tokens of a long prompt pass over them.
constexpr size_t kClaimsPerThread = 8;
constexpr size_t kMostBlocks = 8;
// So many rows of an adapter's matrix are multiplied with a token at once.
constexpr size_t kRowsTogether = 4;

size_t blocks_of_claim(const PackedMatrix& matrix, size_t threads) {
    return std::clamp(matrix.blocks() / (threads * kClaimsPerThread), size_t{1}, kMostBlocks);
}

size_t claims_of(const PackedMatrix& matrix, size_t threads) {
    return divided_up(matrix.blocks(), blocks_of_claim(matrix, threads));
}

size_t rank_groups(const Product& product) { return divided_up(product.low_rank.rank, kRowsTogether); }

// Computes the coefficients of what adapters add, some of one token at a time.
void find_coefficients(
    const VectorKernels& vectors, const std::vector<Product>& products, const float* inputs, Phases& phases) {
    const size_t tokens = products.front().activations.tokens();
    size_t groups = 0;
    for (const Product& product : products) groups += rank_groups(product);
    // Group by group, so that the rows that several tokens are multiplied with stay near.
    if (groups > 0) phases.run(groups * tokens, [&](size_t part) {
        size_t group = part / tokens;
        const size_t token = part % tokens;
        const Product* product = products.data();
        for (; group >= rank_groups(*product); ++product) group -= rank_groups(*product);
        const size_t width = product->matrix.columns, rank = product->low_rank.rank, first = group * kRowsTogether;
        vectors.inner_products(
            inputs + token * width, width, product->low_rank.down + first * width, std::min(kRowsTogether, rank - first),
            product->coefficients + token * rank + first);
    });
}

// Adds to the results of some blocks, while they are near.
void add_low_rank(const VectorKernels& vectors, const Product& product, size_t first_block, size_t last_block) {
    const LowRank& added = product.low_rank;
    if (added.rank == 0) return;
    const size_t rows = product.matrix.rows, first = first_block * kBlockRows;
    const size_t count = std::min(rows, last_block * kBlockRows) - first;
    for (size_t token = 0; token < product.activations.tokens(); ++token) {
        const float* coefficients = product.coefficients + token * added.rank;
        vectors.add_rows({added.up + first, rows, added.rank, coefficients}, count, product.outputs + token * rows + first);
    }
}

}  // namespace

void multiply(
    const MultiplyKernels& kernels, const std::vector<Product>& products, const float* inputs, Phases& phases) {
    find_coefficients(kernels.vectors, products, inputs, phases);
    size_t claims = 0;
    for (const Product& product : products) claims += claims_of(product.matrix, phases.threads());
    phases.run(claims, [&](size_t claim) {
        const Product* product = products.data();
        for (size_t own; claim >= (own = claims_of(product->matrix, phases.threads())); ++product) claim -= own;
        const size_t size = blocks_of_claim(product->matrix, phases.threads());
        const size_t last = std::min(product->matrix.blocks(), (claim + 1) * size);
        kernels.product(*product, claim * size, last);
        add_low_rank(kernels.vectors, *product, claim * size, last);
    });
}

}  // namespace medchat
