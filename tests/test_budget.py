"""The code stays small: lines a package, longest file and function, with the figures of the day.

Code lines are those that hold code: blank lines, comments and docstrings are left out. A change that needs more room
raises a figure here, on purpose and in sight.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES = {"ftmamba": 9400, "bench": 17_700}
LONGEST_FILE = 330
LONGEST_FUNCTION = 60
# Compiled kernels are long because their compilers take one function, or one file of them.
KERNELS = ("simd.py", "chunks.py", "numba_kernels.py", "triton_kernels.py", "triton.py", "numba.py")
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(path: Path) -> int:
    """Lines with code on them."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    text = source.splitlines()
    return sum(bool(text[line - 1].strip()) for line in lines)


FILES = [path for package in LINES for path in sorted((ROOT / package).rglob("*.py"))]


def test_lines_are_counted_as_people_count_them(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = """a\n\nb"""\n\n\ndef f():\n    """Doc."""\n    return x  # why\n'
    )
    assert code_lines(path) == 4


@pytest.mark.parametrize("package", LINES)
def test_a_package_keeps_its_budget(package: str) -> None:
    assert sum(code_lines(path) for path in FILES if path.is_relative_to(ROOT / package)) <= LINES[package]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    if path.name in KERNELS:
        return
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name
