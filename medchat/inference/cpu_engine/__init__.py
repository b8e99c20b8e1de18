"""Products of quantised matrices on the CPU, computed by a small library of our own (`native/`, C++17).

    packed = PackedMatrix.pack(integers, scales, bits)
    outputs = packed.multiply(inputs, threads=2)

The library is compiled with the package where there is a compiler; without it `library.open_library` says why, and
torch computes everything. Imports no torch: `medchat.inference.engine` does.
"""
