"""The method of a VASP calculation, and whether it gives energies on the energy scale of a checkpoint."""

from __future__ import annotations

import bz2
import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.stores.documents.corrections import mp_parameters
from matris.units import DISPERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.core import Composition

CODE = "VASP"

VASP_SCALES = ("mp", "omat24", "matpes-pbe", "matpes-r2scan")
"""Energy scales whose settings are known."""

_CUTOFFS = {"mp": 520.0, "omat24": 520.0, "matpes-pbe": 680.0, "matpes-r2scan": 680.0}  # eV
_LIBRARIES = {"mp": "PBE", "omat24": "PBE_54", "matpes-pbe": "PBE_64", "matpes-r2scan": "PBE_64"}
_SAME_U = 0.01  # eV
_NAMES = {"GGA": "PBE"}  # emmet's name of what a POTCAR of PBE gives without the tag GGA
_ADVICE = {
    "mp": "MPGGARelaxMaker and MPGGAStaticMaker of atomate2 have these settings",
    "omat24": "LabelMaker(energy_scale='omat24') has these settings",
    "matpes-pbe": "MatPesGGAStaticMaker of atomate2 has these settings",
    "matpes-r2scan": "MatPesMetaGGAStaticMaker of atomate2 has these settings",
}


class MethodError(MatrisError):
    """A calculation is not on the energy scale that it should be on."""


@dataclass(frozen=True)
class Method:
    """
    What determines the zero of energy of a VASP calculation.

    Parameters
    ----------
    base
        Exchange-correlation functional without U, such as PBE or r2SCAN.
    hubbards
        Effective Hubbard U (U - J, eV) by element; elements without U are absent.
    potcars
        Symbol of the POTCAR by element, such as Fe_pv.
    titles
        Titles of the POTCARs (``PAW_PBE Fe_pv 06Sep2000``); none before VASP ran.
    library
        pymatgen's name of the POTCAR library, such as PBE_54; None after VASP ran, when the titles tell it.
    cutoff
        Energy cutoff (eV).
    others
        Settings that change the energy otherwise, each as a phrase.
    """

    base: str
    hubbards: Mapping[str, float] = field(default_factory=dict)
    potcars: Mapping[str, str] = field(default_factory=dict)
    titles: tuple[str, ...] = ()
    library: str | None = None
    cutoff: float | None = None
    others: tuple[str, ...] = ()

    @property
    def functional(self) -> str:
        """Name of the functional, such as PBE, PBE+U or r2SCAN."""
        return f"{self.base}+U" if self.hubbards else self.base


def method_of(
    incar: Mapping[str, Any],
    hubbards: Mapping[str, float],
    *,
    symbols: Iterable[str] = (),
    titles: Iterable[str] = (),
    library: str | None = None,
) -> Method:
    """
    Read the method from INCAR settings, and from the POTCARs.

    Parameters
    ----------
    incar
        Settings, by name in capitals; those that VASP printed, or those of an input set.
    hubbards
        Hubbard U minus J by element (eV).
    symbols
        Symbols of the POTCARs. Default: from the titles.
    titles
        Titles of the POTCARs.
    library
        As for `Method`.

    Examples
    --------
    >>> method_of({"METAGGA": "R2SCAN", "ENCUT": 680, "ISPIN": 2}, {}).functional
    'r2SCAN'
    >>> method_of({"GGA": "PE", "ISPIN": 2}, {"Fe": 5.3}, titles=["PAW_PBE Fe_pv 06Sep2000"]).potcars
    {'Fe': 'Fe_pv'}
    """
    from emmet.core.vasp.calc_types import run_type

    settings = {str(key).upper(): value for key, value in incar.items()}
    if str(settings.get("GGA") or "--").strip() in {"--", ""}:
        settings["GGA"] = "--"
    base = str(run_type({**settings, "LDAU": False}).value)
    titles = tuple(" ".join(str(title).split()) for title in titles)
    symbols = list(symbols) or [words[1] for title in titles if len(words := title.split()) > 1]
    others = [
        phrase
        for phrase, is_so in (
            ("a van der Waals correction", bool(settings.get("IVDW")) or bool(settings.get("LUSE_VDW"))),
            ("no spin polarization (ISPIN = 1)", int(settings.get("ISPIN") or 1) == 1),
            ("spin-orbit coupling", bool(settings.get("LSORBIT"))),
            ("an external pressure (PSTRESS), which VASP adds to the energy", bool(settings.get("PSTRESS"))),
            ("POTCARs that are not of PBE", any(not title.startswith("PAW_PBE ") for title in titles)),
        )
        if is_so
    ]
    return Method(
        base=_NAMES.get(base, base),
        hubbards={element: float(u) for element, u in hubbards.items() if u},
        potcars={symbol.partition("_")[0].partition(".")[0]: symbol for symbol in symbols},
        titles=titles,
        library=library,
        cutoff=None if settings.get("ENCUT") is None else float(settings["ENCUT"]),
        others=tuple(others),
    )


def check_method(method: Method, composition: Composition, energy_scale: str) -> None:
    """
    Check that a method gives energies on an energy scale.

    Functional, Hubbard U, symbols and library of the POTCARs, spin polarization and energy cutoff must be those of the
    scale. The cutoff may be larger. Scales without known settings accept all methods.

    Parameters
    ----------
    method
        Method of the calculation.
    composition
        What is calculated.
    energy_scale
        Energy scale of a checkpoint.

    Raises
    ------
    MethodError
        If it does not; the message names all differences.

    Examples
    --------
    >>> from pymatgen.core import Composition
    >>> potcars = {"Fe": "Fe_pv", "O": "O"}
    >>> check_method(Method("PBE", {"Fe": 5.3}, potcars, cutoff=520), Composition("Fe2O3"), "mp")
    >>> check_method(Method("PBE", {}, potcars, cutoff=520), Composition("Fe2O3"), "mp")
    Traceback (most recent call last):
    matris.stores.dft_method.MethodError: Fe2O3 is calculated with PBE, but the energy scale mp needs PBE+U ...
    """
    check_scale(energy_scale)
    if energy_scale not in VASP_SCALES:
        return
    if problems := _differences(method, composition, energy_scale):
        raise MethodError(
            f"{composition.reduced_formula} is calculated with {'; with '.join(problems)}. {_ADVICE[energy_scale]}"
        )


def check_scale(energy_scale: str) -> None:
    """
    Check that there can be labels on an energy scale.

    Raises
    ------
    MethodError
        If the scale has dispersion, which is not learnt but added.
    """
    if energy_scale.endswith(DISPERSION):
        raise MethodError(
            f"labels for the energy scale {energy_scale} are those of {energy_scale.removesuffix(DISPERSION)}, because "
            "dispersion is added to the network's energy: use the checkpoint without dispersion"
        )


def potcar_symbols(energy_scale: str) -> Mapping[str, str]:
    """
    Symbol of the POTCAR of each element on an energy scale.

    Those of MPRelaxSet and MatPESStaticSet of pymatgen. OMat24 takes W_sv and Yb_3, and otherwise the symbols of
    MPRelaxSet (fairchem, PBE54Base.yaml of its OMat24 input sets).

    Examples
    --------
    >>> potcar_symbols("mp")["Fe"], potcar_symbols("matpes-pbe")["Ba"]
    ('Fe_pv', 'Ba_sv_GW')
    """
    from pymatgen.io.vasp.sets import MatPESStaticSet, MPRelaxSet

    if energy_scale.startswith("matpes"):
        return MatPESStaticSet.CONFIG["POTCAR"]
    symbols: dict[str, str] = MPRelaxSet.CONFIG["POTCAR"]
    return symbols | OMAT24_POTCARS if energy_scale == "omat24" else symbols


OMAT24_POTCARS = {"W": "W_sv", "Yb": "Yb_3"}
"""POTCARs of OMat24 that are not those of MPRelaxSet."""


def _differences(method: Method, composition: Composition, scale: str) -> Sequence[str]:
    """Phrases for what differs from the method of an energy scale; none if nothing does."""
    elements = {element.symbol for element in composition.remove_charges().elements}
    base = "r2SCAN" if scale == "matpes-r2scan" else "PBE"
    hubbards = mp_parameters(composition)["hubbards"] if scale in {"mp", "omat24"} else {}
    wanted = Method(base, hubbards).functional
    problems = []
    if method.functional != wanted:
        of = f" ({_listed(hubbards)})" if hubbards else ""
        problems.append(f"{method.functional}, but the energy scale {scale} needs {wanted}{of}")
    elif any(abs(method.hubbards.get(s, 0.0) - hubbards.get(s, 0.0)) > _SAME_U for s in elements):
        problems.append(f"{_listed(method.hubbards)}, but the energy scale {scale} needs {_listed(hubbards)}")
    symbols = potcar_symbols(scale)
    if other := {s: p for s, p in method.potcars.items() if s in elements and symbols.get(s) not in {p, None}}:
        needed = ", ".join(symbols[symbol] for symbol in other)
        problems.append(f"the POTCAR {', '.join(other.values())}, but the energy scale {scale} needs {needed}")
    library = _LIBRARIES[scale]
    if method.library is not None and method.library.removesuffix("_W_HASH") != library:
        problems.append(f"POTCARs of {method.library}, but the energy scale {scale} needs those of {library}")
    foreign = [title for title in method.titles if title.replace(" ", "") not in _titles(library)]
    if foreign and not other:
        problems.append(f"the POTCAR {foreign[0]}, which is not in the library {library} of the energy scale {scale}")
    if method.cutoff is not None and method.cutoff < _CUTOFFS[scale] - 1:
        problems.append(f"a cutoff of {method.cutoff:g} eV, but the energy scale {scale} needs {_CUTOFFS[scale]:g} eV")
    return [*problems, *method.others]


def _listed(hubbards: Mapping[str, float]) -> str:
    return ", ".join(f"U({symbol}) = {u:g} eV" for symbol, u in sorted(hubbards.items())) or "no U"


@cache
def _titles(library: str) -> frozenset[str]:
    """Titles of the POTCARs of a library, without spaces, from the list that pymatgen brings."""
    from pymatgen.io.vasp.inputs import POTCAR_STATS_PATH

    with bz2.open(POTCAR_STATS_PATH, "rt", encoding="utf-8") as stream:
        return frozenset(json.load(stream)[library])
