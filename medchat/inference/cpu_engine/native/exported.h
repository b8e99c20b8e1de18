// What the functions that Python calls have in common.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

#if defined(_WIN32)
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif

namespace medchat {

// As in medchat/inference/cpu_engine/library.py.
enum Result : int { kDone = 0, kNoMemory = 1, kStopped = 2 };

inline PackedMatrix matrix_at(int bits, size_t rows, size_t columns, const uint8_t* packed) {
    PackedMatrix matrix{bits, rows, columns, packed, nullptr};
    matrix.scales = reinterpret_cast<const uint16_t*>(packed + matrix.integer_bytes());
    return matrix;
}

}  // namespace medchat
