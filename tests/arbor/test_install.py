"""The package as `pip install .` leaves it, used from a folder that knows nothing of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("arbor", "mcts", "models", "eval", "configs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed packages. The build works on a copy: it writes into its source."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, cwd: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_interface_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    check = "import arbor, pathlib, sys; assert pathlib.Path(arbor.__file__).is_relative_to(sys.argv[1])\n"
    run(installed, tmp_path, "-c", check + block, str(installed))
    assert (tmp_path / "trees.jsonl").stat().st_size > 1000


def test_the_command_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert (installed / "bin" / "arbor").exists()
    assert "solve" in run(installed, tmp_path, "-m", "arbor", "--help")
    table = run(installed, tmp_path, "-m", "arbor", "demo", "--limit", "3", "--output", str(tmp_path / "demo"))
    assert "greedy" in table and "mcts" in table
