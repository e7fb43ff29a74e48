"""Counts how many cases of the ONNX backend test suite pass: `python tests/onnx/conformance.py [--backend reference] [--count]`.

Without --count every case that does not pass is listed with its reason.
"""

from __future__ import annotations

import argparse
import re
import sys
import unittest
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "frontends"), str(ROOT / "backends"), str(Path(__file__).parent)]

from onnx_suite import build, excluded, tier  # noqa: E402

from graphc_onnx.backend import GraphcBackend, ReferenceBackend  # noqa: E402


def outcome(case: unittest.TestCase) -> tuple[str, str]:
    """(pass, skip or fail; reason)."""
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.run(result)
    if result.skipped:
        return "skip", result.skipped[0][1]
    problems = result.errors + result.failures
    return ("fail", problems[0][1].strip().splitlines()[-1]) if problems else ("pass", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("cpu", "reference"), default="cpu")
    parser.add_argument("--count", action="store_true", help="print the counts only")
    parser.add_argument("--match", default="", help="only cases whose name matches this pattern")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    for group, cases in build(ReferenceBackend if options.backend == "reference" else GraphcBackend).items():
        for name in sorted(name for name in vars(cases) if name.startswith("test_") and re.search(options.match, name)):
            found, reason = outcome(cases(name))
            label = "excluded" if found != "pass" and excluded(name, options.backend) else found
            counts[group, label] += 1
            counts["all", label] += 1
            level = tier(name)
            if level:
                counts["core", label] += 1
                counts[f"core tier {level}", label] += 1
            if found != "pass" and not options.count:
                print(f"{label} {'core ' if level else ''}{name}: {reason[:300]}")
    for group in sorted({group for group, _ in counts}):
        total = sum(count for (g, _), count in counts.items() if g == group)
        parts = ", ".join(f"{counts[group, label]} {label}" for label in ("pass", "fail", "skip", "excluded"))
        print(f"{group}: {parts} of {total}")
    return 1 if counts["all", "fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
