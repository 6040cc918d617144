"""How files that ship with the package were made; not part of the wheel."""
