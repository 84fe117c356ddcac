"""Kernels from a file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from autograder.kernels.gpu import choose_mode

__all__ = ["load"]


def load(path: Path) -> ModuleType:
    """A Python file as a module, run in this process. Raises: ValueError if it is none, else whatever it raises."""
    choose_mode()
    spec = importlib.util.spec_from_file_location(f"kernels_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Triton looks a kernel's module up there
    spec.loader.exec_module(module)
    return module
