"""Pack one million lengths: seconds and fill.

    python tests/benchmarks/packing.py [--samples 1000000] [--capacity 4096]

The lengths are log-normal (median 330 tokens, long tail, cut at the capacity), as chat datasets have them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from martlet_data.api import pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=int, nargs="*", default=[2048, 4096, 32768])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for capacity in options.capacity:
        lengths = np.clip(np.exp(rng.normal(5.8, 0.9, options.samples)).astype(np.int64), 8, capacity)
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            packs = pack(lengths, capacity)
            seconds.append(time.perf_counter() - start)
        print(
            f"packing samples={options.samples} capacity={capacity} packs={len(packs)} "
            f"seconds={statistics.median(seconds):.2f} fill={packs.fill:.4f}"
        )


if __name__ == "__main__":
    main()
