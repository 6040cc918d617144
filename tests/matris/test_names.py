"""The public names mean the same whatever was imported before."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.mark.parametrize("package", ["matris", "matris.makers", "matris.flows", "matris.stores"])
def test_no_module_stands_in_for_a_public_name(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        assert not isinstance(value, ModuleType)
        importlib.import_module(value.__module__)
        assert getattr(importlib.import_module(package), name) is value
        assert value.__module__ != f"{package}.{name}", "importing this module would hide the name"
