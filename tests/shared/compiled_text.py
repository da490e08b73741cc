"""What the text of a compiled program says: XLA's optimized HLO, and NVIDIA's PTX."""

import re
from collections import defaultdict
from typing import NamedTuple

LAUNCHES_NOTHING = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("opt-barrier", "copy-done", "async-done"),
}
"""Instructions of HLO that only name or regroup what is there."""

CALLS = {"call": "to_apply", "while": "body"}
"""Instructions that run a computation, and the attribute that names it. (A fusion is one kernel.)"""


class Instruction(NamedTuple):
    """An instruction of HLO: its operation, and its line."""

    operation: str
    line: str

    def runs(self):
        """The name of the computation that it runs."""
        return re.search(rf"{CALLS[self.operation]}=%?([\w.-]+)", self.line)[1]


def computations(hlo):
    """The instructions of every computation by its name, and the name of the one that runs first."""
    found, name, entry = defaultdict(list), "", ""
    for line in hlo.splitlines():
        if begins := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = begins[2]
            entry = name if begins[1] else entry
        elif said := re.match(r"\s+(?:ROOT )?%?[\w.-]+ = .*? ([a-z][\w-]*)\(", line):
            found[name].append(Instruction(said[1], line))
    return found, entry


def launches(hlo):
    """What a program starts on the device: kernels, copies and calls of libraries.

    Args:
        hlo: of a program with at most one loop, whose one step is counted, and nothing outside it.
    """
    found, entry = computations(hlo)
    loops = [each for each in found[entry] if each.operation == "while"]

    def count(name):
        return sum(map(count_one, found[name]))

    def count_one(instruction):
        if instruction.operation in CALLS:
            return count(instruction.runs())
        return instruction.operation not in LAUNCHES_NOTHING

    return count(loops[0].runs()) if loops else count(entry)


def scatters(hlo):
    """The scatters of a program, a line for each."""
    found, _ = computations(hlo)
    return [
        each.line for of_one in found.values() for each in of_one if each.operation == "scatter"
    ]


def unordered_additions(ptx):
    """The instructions by which threads add, or do anything else, to one place in memory in any order."""
    return re.findall(r"^\s*(?:@\S+\s+)?((?:atom|red)\.\S+ .*)$", ptx, re.MULTILINE)


def rounded_products(ptx):
    """The instructions of tensor cores, and conversions to TF32, the format to which these round float32."""
    return re.findall(r"^.*\b(?:w?mma|wgmma|tcgen05)\..*$|^.*\btf32\b.*$", ptx, re.MULTILINE)


def library_calls(hlo):
    """The libraries' functions that a program calls."""
    return set(re.findall(r'custom_call_target="([^"]+)"', hlo))


def products_below_full_precision(hlo):
    """The matrix products, by cuBLAS or by kernels of XLA, that may round their operands."""
    found, _ = computations(hlo)
    products = [
        each.line
        for of_one in found.values()
        for each in of_one
        if each.operation == "dot" or "$matmul" in each.line or "$gemm" in each.line
    ]
    full = re.compile(
        r'operand_precision=\{highest,highest\}|"operand_precision":\["HIGHEST","HIGHEST"\]'
    )
    return [line for line in products if not full.search(line)]
