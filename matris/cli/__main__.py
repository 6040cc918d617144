"""``python -m matris.cli``, for launchers such as ``torchrun`` that start a module."""

from matris.cli.main import main

if __name__ == "__main__":
    main()
