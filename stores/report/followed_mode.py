"""Where the most unstable mode of a phonon document leads, for its page."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, NamedTuple

from matris.files.stored_objects import decode_structure
from matris.files.structure_files import file_name, structure_text
from matris.stores.report.formats import decimals

if TYPE_CHECKING:
    from collections.abc import Mapping


class Followed(NamedTuple):
    """
    The most unstable mode, and the crystal that it leads to.

    Attributes
    ----------
    text
        Wave vector and frequency; if it was followed, also space group and energy change.
    name, link
        Name and address of the CIF file of the crystal; empty if there is none. The address holds the file.
    """

    text: str
    name: str = ""
    link: str = ""


def followed(document: Mapping[str, Any]) -> Followed | None:
    """
    Describe the most unstable mode of a document; None if it has none.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.PhononDocument`.

    Examples
    --------
    >>> mode = {"qpoint": [0.5, 0, 0], "frequency": -5.4, "state": None, "structure": None}
    >>> followed({"unstable_mode": mode}).text
    'Most unstable mode: 5.40i THz at q = (0.5, 0, 0)'
    """
    mode = document.get("unstable_mode")
    if not mode:
        return None
    q = ", ".join(f"{x:g}" for x in mode["qpoint"])
    text = f"Most unstable mode: {-mode['frequency']:.2f}i THz at q = ({q})"
    if mode.get("state") is None:
        return Followed(text)
    symbol = (mode.get("symmetry") or {}).get("symbol") or "unknown"
    gain = mode.get("energy_gain")
    change = "" if gain is None else f", {decimals(1e3 * gain, 2)} meV/atom"
    state = {"converged": "", "max_steps": ", not converged"}.get(mode["state"], f", {mode['state']}")
    text += f". Distorted along it and relaxed: space group {symbol}{change}{state}"
    if not isinstance(mode.get("structure"), dict) or "sites" not in mode["structure"]:
        return Followed(text)
    cif = structure_text(decode_structure(mode["structure"]))
    name = file_name(f"{document.get('formula_pretty') or 'crystal'}-followed", mode["state"])
    return Followed(text, name, f"data:chemical/x-cif;base64,{b64encode(cif.encode()).decode()}")
