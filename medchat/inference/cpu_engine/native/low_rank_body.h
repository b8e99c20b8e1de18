// What adapters add to products; included by vector_kernels_body.h, in the same terms.

// Of some rows, which share the reading of the values.
template <size_t Rows>
KERNEL void inner_products_of(const float* values, size_t width, const float* rows, float* products) {
    Lanes sums[Rows];
    for (Lanes& sum : sums) sum = Lanes::all(0.0f);
    for (size_t i = 0; i < width; i += Lanes::kCount) {
        const Lanes some = load_some(values + i, width - i);
        for (size_t r = 0; r < Rows; ++r) sums[r] = load_some(rows + r * width + i, width - i).fused(some, sums[r]);
    }
    for (size_t r = 0; r < Rows; ++r) products[r] = sum_of(sums[r]);
}

KERNEL void inner_products(const float* values, size_t width, const float* rows, size_t count, float* products) {
    size_t r = 0;
    for (; r + 4 <= count; r += 4) inner_products_of<4>(values, width, rows + r * width, products + r);
    for (; r < count; ++r) inner_products_of<1>(values, width, rows + r * width, products + r);
}

// Of the first `count` columns, as many registers of them; the sums stay in registers while all rows are added.
template <size_t Registers>
KERNEL void add_rows_to(const WeightedRows& rows, size_t count, float* sums) {
    Lanes added[Registers];
    for (size_t r = 0; r < Registers; ++r) added[r] = load_some(sums + r * Lanes::kCount, count - r * Lanes::kCount);
    for (size_t k = 0; k < rows.count; ++k) {
        const float* row = rows.first + k * rows.stride;
        const Lanes weight = Lanes::all(rows.weights[k]);
        for (size_t r = 0; r < Registers; ++r) {
            added[r] = load_some(row + r * Lanes::kCount, count - r * Lanes::kCount).fused(weight, added[r]);
        }
    }
    for (size_t r = 0; r < Registers; ++r) store_some(added[r], count - r * Lanes::kCount, sums + r * Lanes::kCount);
}

KERNEL void add_rows(WeightedRows rows, size_t count, float* sums) {
    constexpr size_t together = 4 * Lanes::kCount;
    for (; count >= together; count -= together, sums += together, rows.first += together) {
        add_rows_to<4>(rows, together, sums);
    }
    for (; count > 0; sums += Lanes::kCount, rows.first += Lanes::kCount) {
        const size_t some = count < Lanes::kCount ? count : Lanes::kCount;
        add_rows_to<1>(rows, some, sums);
        count -= some;
    }
}
