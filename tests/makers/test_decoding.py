"""Stored Makers: only classes of this package are imported."""

from __future__ import annotations

import sys

import pytest
from pymatgen.core import Lattice, Structure

from matris.errors import StoreError
from matris.files.stored_objects import decode_structure
from matris.makers import BatchRelaxMaker, BatchStaticMaker
from matris.makers.decoding import TRUSTED, decode_maker, environment_for

HOSTILE = [
    {"@module": "os", "@callable": "system"},
    {"@module": "this", "@class": "Anything"},
    {"@module": "this", "@callable": "c", "@bound": None},
    {"@module": "builtins", "@class": "exec", "args": "1"},
    {"@module": "matris.makers.batch_relax", "@callable": "replace"},
    {"@module": "matris.makers.batch_relax", "@class": "BatchRelaxMaker", "@bound": {"@module": "this"}},
    {"@module": "matris.makers.batch", "@class": "Structure"},
    {"@module": "matris.makers.batch", "@class": "Path"},
    {"@module": "matris.makersX", "@class": "BatchRelaxMaker"},
    {"@module": "matris.makers.none", "@class": "BatchRelaxMaker"},
    {"@module": "matris.makers.batch_relax", "@class": "BatchRelaxMaker.make"},
    {"@module": ["os"], "@class": "system"},
    {"@class": "BatchRelaxMaker"},
    {"@module": "subprocess", "@class": "Popen", "args": "true"},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
@pytest.mark.parametrize(
    "place",
    [
        lambda _, x: x,
        lambda maker, x: maker | {"first": x},
        lambda maker, x: maker | {"name": x},
        lambda maker, x: maker | {"relax_kwargs": {"fmax": x}},
        lambda maker, x: maker | {"relax_kwargs": {"fmax": {"a": [1.0, [x]]}}},
        lambda maker, x: maker | {"first": maker | {"tags": [x]}},
    ],
)
def test_other_classes_and_functions_are_refused(hostile, place):
    sys.modules.pop("this", None)
    with pytest.raises(StoreError, match=r"decoded|imported"):
        decode_maker(place(BatchRelaxMaker().as_dict(), hostile))
    assert "this" not in sys.modules


def test_makers_are_decoded():
    maker = BatchStaticMaker(dtype="float64", first=BatchRelaxMaker(steps=3, relax_kwargs={"fmax": 0.2}), tags=["a"])
    assert decode_maker(maker.as_dict()) == maker
    with pytest.raises(StoreError, match="unknown_field"):
        decode_maker(BatchRelaxMaker().as_dict() | {"unknown_field": 1})


@pytest.mark.parametrize("hostile", HOSTILE[:4], ids=str)
def test_structures_hold_known_classes(hostile):
    salt = Structure(Lattice.cubic(3.5), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3], site_properties={"magmom": [0.0, 1.0]})
    assert decode_structure(salt.as_dict()) == salt
    document = salt.as_dict()
    document["sites"][1]["properties"]["magmom"] = {"deep": [hostile]}
    sys.modules.pop("this", None)
    with pytest.raises(StoreError, match=r"sites\.1\.properties\.magmom\.deep\.0 names"):
        decode_structure(document)
    assert "this" not in sys.modules


def test_own_makers_are_decoded_where_their_module_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "my_makers.py").write_text(
        "from dataclasses import dataclass\n"
        "from matris.makers import BatchRelaxMaker\n"
        "@dataclass\n"
        "class MyMaker(BatchRelaxMaker):\n"
        "    mine: int = 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUSTED, raising=False)
    document = BatchRelaxMaker().as_dict() | {"@module": "my_makers", "@class": "MyMaker", "mine": 3}
    with pytest.raises(StoreError, match=r"names my_makers.MyMaker.*set MATRIS_MAKERS to its module"):
        decode_maker(document)
    assert "my_makers" not in sys.modules

    monkeypatch.setenv(TRUSTED, environment_for(document)[TRUSTED])
    assert decode_maker(document).mine == 3

    monkeypatch.delenv(TRUSTED)
    assert decode_maker(document).mine == 3  # the module is imported already
    sys.modules.pop("my_makers")
