"""Writes what the documentation says of the code: docs/api.md, and the table of keys in docs/configuration.md.

python scripts/make_docs.py            writes both
python scripts/make_docs.py --check    exits with 1 where they are not what it would write
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arbor
from models.engines.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
API, CONFIGURATION = ROOT / "docs" / "api.md", ROOT / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: made by scripts/make_docs.py -->", "<!-- end of keys -->"


def api() -> str:
    """The public names of `arbor` with their signatures and docstrings."""
    parts = [
        "# The Python interface\n\nMade from the docstrings by `python scripts/make_docs.py`. "
        f"Version {arbor.__version__}.\n"
    ]
    for name in sorted(arbor.__all__, key=str.lower):
        if name != "__version__":
            parts += entry(name, getattr(arbor, name))
    return "\n".join(parts)


def entry(name: str, thing: Any) -> Iterator[str]:
    yield f"## `{name}`\n"
    yield f"```python\n{name}{signature(thing)}\n```\n"
    yield f"{text(thing)}\n"
    if inspect.isclass(thing):
        for key, words in described_fields(thing):
            yield f"- **`.{key}`**: {words}"
        for key, member in public_members(thing):
            call = signature(member) if inspect.isfunction(member) else ""
            yield f"- **`.{key}{call}`**: {' '.join(text(member).split())}"
        yield ""


def described_fields(kind: type) -> Iterator[tuple[str, str]]:
    """The fields of a class that a string below them describes."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for field, words in itertools.pairwise(definition.body):
        if not (isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)):
            continue
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield field.target.id, " ".join(str(words.value.value).split())


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class offers and describes, in the order of its source."""
    for key, member in vars(kind).items():
        if (
            not key.startswith("_")
            and inspect.getdoc(member)
            and (isinstance(member, property | cached_property) or inspect.isfunction(member))
        ):
            yield key, member


def signature(thing: Any) -> str:
    try:
        shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))  # annotations are texts
        return shown.replace("self, ", "").replace("(self)", "()")
    except (TypeError, ValueError):
        return ""


def text(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def keys() -> str:
    """One row a key of a run's configuration."""
    rows = ["| key | default | what |", "|---|---|---|"]
    for key, field in RunConfig.model_fields.items():
        value = field.get_default(call_default_factory=True)
        default = "" if value is None else repr(value).replace("'", '"')
        rows.append(f"| `{key}` | {default} | {' '.join(str(field.description).split())} |")
    return "\n".join(rows)


def configuration() -> str:
    before, _, rest = CONFIGURATION.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{keys()}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = 0
    for path, content in ((API, api()), (CONFIGURATION, configuration())):
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            stale += 1
            print(f"{path.relative_to(ROOT)}: {'not up to date' if check else 'written'}")
            if not check:
                path.write_text(content, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
