"""
Compile the kernels for GPUs that are not here, and print what they use: one line of JSON each.

``python -m tests.matris.model.compile_triton [GPU …] [--precision …] [--widths H,E …]``
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from matris.model import triton_kernels
from matris.model.triton_messages import TILES, Tile

GPUS = {
    "sm_80": (GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm_89": (GPUTarget("cuda", 89, 32), 99 * 1024),
    "sm_90": (GPUTarget("cuda", 90, 32), 227 * 1024),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 64 * 1024),
}
"""What Triton calls a GPU, and the shared memory that one program may have there (bytes)."""

TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"
LISTS = {"TARGET", "SOURCE", "CENTER", "ENTRY", "STARTS", "ROWS"}

# Everything a kernel can do, as on the line graph, where the time goes, of a smooth network with biases.
LINE = {"COPIES": 1, "CENTERED": True, "UPDATE": True, "WEIGHTED": False, "BIAS": True, "SMOOTH_EDGES": False,
        "SMOOTH": True}  # fmt: skip
ATOM = {**LINE, "COPIES": 2, "CENTERED": False, "SMOOTH_EDGES": True}
SEGMENTS: dict[str, dict[str, Any]] = {
    "segment_means": {"K": 16},
    "segment_sums": {"D": 256, "WIDTH": 256, "SCALED": True, "K": 16},
}


def compiled(name: str, gpu: str, precision: str, hidden: int, width: int, flags: dict[str, Any], tile: Tile) -> dict:
    """Compile one kernel; count registers, bytes of registers kept in memory, and shared memory."""
    kernel = getattr(triton_kernels, name)
    known = {**flags, "H": hidden, "E": width, "M": tile.edges, "HC": tile.channels, "PRECISION": precision}
    known |= SEGMENTS.get(name, {})
    names = [parameter.name for parameter in kernel.params]
    constants = {parameter.name: known[parameter.name] for parameter in kernel.params if parameter.is_constexpr}
    kinds = {x: "constexpr" if x in constants else "i32" if x in {"m", "row"} else "*i32" if x in LISTS else "*fp32"
             for x in names}  # fmt: skip
    aligned = {(i,): [["tt.divisibility", 16]] for i, x in enumerate(names) if kinds[x].startswith("*") or x == "row"}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=aligned)
    target, limit = GPUS[gpu]
    start = time.perf_counter()
    binary = triton.compile(source, target, tile.options(amd=target.backend == "hip"))
    seconds = time.perf_counter() - start
    registers, spilled = (in_cuda if target.backend == "cuda" else in_hip)(binary.asm)
    return {"kernel": name, "gpu": gpu, "precision": precision, "copies": flags["COPIES"], "hidden": hidden,
            "width": width, "tile": list(tile), "registers": registers, "spilled": spilled,
            "shared": binary.metadata.shared, "shared_limit": limit, "seconds": round(seconds, 1)}  # fmt: skip


def in_cuda(assembly: dict[str, Any]) -> tuple[int, int]:
    """Registers per thread, and bytes per thread that the compiler spills to the stack."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(assembly["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return int(registers), int(stack)


def in_hip(assembly: dict[str, Any]) -> tuple[int, int]:
    """Vector registers of a thread, and its bytes in scratch memory."""
    text = assembly["amdgcn"]
    registers = re.search(r"\.vgpr_count:\s*(\d+)", text)
    scratch = re.search(r"\.private_segment_fixed_size:\s*(\d+)", text)
    return int(registers[1]), int(scratch[1])


def main() -> None:
    """Print a line for each kernel and GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gpus", nargs="*", default=["sm_80", "sm_90", "gfx942"])
    parser.add_argument("--kernels", nargs="+", default=[*TILES, *SEGMENTS])
    parser.add_argument("--precision", help="default: that of `matris.model.potential.Potential`")
    parser.add_argument("--widths", default="128,128", help="hidden layer, edges")
    parser.add_argument("--atom", action="store_true", help="the atom graph in place of the line graph")
    parser.add_argument("--tile", help="edges,channels,threads,stages in place of what is used")
    options = parser.parse_args()
    hidden, width = (int(x) for x in options.widths.split(","))
    for gpu in options.gpus:
        precision = options.precision or ("ieee" if gpu.startswith("gfx") else "tf32x3")
        for name in options.kernels:
            tile = TILES.get(name, Tile(16, 16, 128, 1))
            if options.tile:
                tile = Tile(*(int(x) for x in options.tile.split(",")))
            flags = dict(ATOM if options.atom else LINE)
            print(json.dumps(compiled(name, gpu, precision, hidden, width, flags, tile)), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
