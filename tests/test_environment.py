"""environment.yml asks for what pyproject.toml asks for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent


def requirements(lines: list[str]) -> dict[str, str]:
    """Name and version range of each requirement."""
    pairs = (re.match(r"([A-Za-z0-9_-]+)\s*(.*)", line.strip()) for line in lines)
    return {pair[1].lower().replace("_", "-"): pair[2].replace(" ", "") for pair in pairs if pair}


def test_conda_and_pip_install_the_same_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What one system alone has comes with pip: conda knows no such conditions.
    wanted = requirements([line for line in project["dependencies"] if "platform_system" not in line])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    given = requirements(conda)
    assert given.pop("python") == project["requires-python"]
    del given["pip"]
    given["torch"] = given.pop("pytorch")
    assert given == wanted
    assert environment["name"] == project["name"]


def test_every_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    lines = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert len(lines) >= 8
    assert all("#" in line for line in lines), [line for line in lines if "#" not in line]


def test_pre_commit_runs_what_ci_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    ours = (ROOT / ".ci" / "run").read_text()
    commands = set(re.findall(r"^\.venv/bin/((?:ruff|mypy|attn).*)$", ours, re.MULTILINE))
    assert {hook["entry"] for hook in hooks} == commands
    assert not any(hook.get("pass_filenames", True) for hook in hooks)
