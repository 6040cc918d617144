"""
Make the structures that labels start from: ``python -m recipes.embedded.structures KIND``.

``elements`` makes crystals of each element, ``prototypes`` fills structure types for random chemical systems,
``literature`` takes known crystals as they are, ``variants`` replaces their elements by similar ones, ``balanced``
replaces them by any, so that each element is as frequent. No formula is reserved for measurements, or in WBM.

The seed decides on the result. A file appears when it is complete: two or three prototypes are made a second, and
several processes share the work by several seeds.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.embedded.labels import formulas_of_wbm, part_of
from recipes.embedded.materials import ELEMENTS, elements, generate, write_structures
from recipes.embedded.pieces import claim
from recipes.embedded.substitution import balanced, fitted_volumes, templates
from recipes.embedded.variants import KEPT, SIZES, unchanged, variants
from recipes.embedded.volumes import own_volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipes.embedded.materials import Material

logger = logging.getLogger(__name__)


def made_by(options: argparse.Namespace) -> Iterator[Material]:
    """Make the materials that the command line asks for."""
    if options.kind == "elements":
        return elements(own_volume)
    reserved = formulas_of_wbm(options.data)
    if options.kind == "prototypes":
        return generate(options.seed, options.count, reserved)
    if options.kind == "literature":
        return unchanged(options.data, (options.sizes[0], options.sizes[1]), reserved)
    if options.kind == "variants":
        sizes = (options.sizes[0], options.sizes[1])
        return variants(options.data, options.seed, options.count, sizes=sizes, kept=options.kept, reserved=reserved)
    volumes = fitted_volumes(options.data, reserved)
    return balanced(templates(options.data, reserved), volumes, options.seed, options.each, reserved)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a file of structures, unless it exists or another process makes it."""
    parser = argparse.ArgumentParser(prog="python -m recipes.embedded.structures", description=__doc__.split("\n")[1])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name in ("elements", "prototypes", "literature", "variants", "balanced"):
        kind = kinds.add_parser(name)
        kind.add_argument("--output", type=Path, required=True, help="file, NAME.jsonl.gz")
        if name == "elements":
            continue
        kind.add_argument("--data", type=Path, required=True, help="folder of reference data: DFT frames and WBM")
        if name == "literature":
            continue
        kind.add_argument("--seed", type=int, required=True)
        if name == "balanced":
            kind.add_argument("--each", type=int, default=150, help="materials of each element, at least")
        else:
            kind.add_argument("--count", type=int, required=True, help="number of materials")
    for name in ("literature", "variants"):
        kinds.choices[name].add_argument("--sizes", type=int, nargs=2, default=SIZES, help="atoms in a cell")
    kinds.choices["variants"].add_argument("--kept", type=float, default=KEPT, help="share of elements that stay")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    with claim(options.output) as mine:
        if not mine:
            logger.info("%s exists, or another process makes it", options.output)
            return
        materials = list(made_by(options))
        write_structures(options.output, materials)
    counts = Counter(element.symbol for m in materials for element in m.structure.composition)
    parts = Counter(part_of(m.formula) for m in materials)
    logger.info("%d materials: %s", len(materials), dict(parts))
    few = sorted(ELEMENTS, key=lambda symbol: counts[symbol])[:10]
    logger.info("the rarest elements: %s", {symbol: counts[symbol] for symbol in few})


if __name__ == "__main__":
    main()
