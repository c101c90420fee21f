"""The bundle has the code of all modules, each after the modules that it imports from."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import patient
from workers.supervisor import bundle

PACKAGE = Path(bundle.__file__).parent
TREES = {name: ast.parse((PACKAGE / f"{name}.py").read_text(), feature_version=(3, 8)) for name in bundle.MODULES}
PREFIX = "workers.supervisor."


def own_imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """Return every import of another module of the package, wherever it stands."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [node for node in found if (node.module or "").startswith("workers")]


def defined(tree: ast.Module) -> set[str]:
    """Return the names that a module defines at its top level, imports aside."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return names | {
        node.id
        for one in assigned
        for node in ast.walk(one)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def test_every_module_is_bundled_once() -> None:
    assert sorted(bundle.MODULES) == sorted(
        path.stem for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "bundle")
    )


@pytest.mark.parametrize("name", bundle.MODULES)
def test_a_module_imports_only_from_modules_before_it(name: str) -> None:
    earlier = bundle.MODULES[: bundle.MODULES.index(name)]
    for node in own_imports(TREES[name]):
        assert (node.module or "").removeprefix(PREFIX) in earlier, f"line {node.lineno}"
        assert not [one.asname for one in node.names if one.asname], "the bundle keeps each name as it is defined"


@pytest.mark.parametrize("name", bundle.MODULES)
def test_a_module_imports_names_that_their_module_defines_itself(name: str) -> None:
    for node in own_imports(TREES[name]):
        assert {one.name for one in node.names} <= defined_for_types(TREES[(node.module or "").removeprefix(PREFIX)])


def defined_for_types(tree: ast.Module) -> set[str]:
    """Return the names that a module defines, also those for the type checker alone."""
    checked = [node for node in tree.body if isinstance(node, ast.If)]
    return defined(tree).union(*(defined(ast.Module(node.body, [])) for node in checked))


def test_no_two_modules_define_the_same_name() -> None:
    seen: dict[str, str] = {}
    for name, tree in TREES.items():
        for one in defined(tree):
            assert one not in seen, f"{one} is defined in {seen[one]} and in {name}"
            seen[one] = name
    imported = {one.asname or one.name for tree in TREES.values() for node in tree.body for one in imported_names(node)}
    assert not imported & set(seen)


def imported_names(node: ast.stmt) -> list[ast.alias]:
    """Return what a statement imports from the standard library."""
    is_own = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workers")
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) and not is_own else []


def test_modules_import_the_standard_library_alone() -> None:
    tree = ast.parse(bundle.source(), feature_version=(3, 8))
    plain = [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in plain + named} <= {*sys.stdlib_module_names}


def test_each_function_of_the_bundle_is_found_in_its_module() -> None:
    functions = [node for node in ast.walk(ast.parse(bundle.source())) if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 200
    for function in functions:
        name, line = bundle.locate(function.lineno)
        assert f"def {function.name}(" in (PACKAGE / name).read_text().splitlines()[line - 1]


def test_only_types_and_imports_of_the_package_are_missing_in_the_bundle() -> None:
    modules = [Untyped().visit(ast.parse((PACKAGE / f"{name}.py").read_text())) for name in bundle.MODULES]
    statements = [node for tree in modules for node in tree.body if not bundle._is_dropped(node)]
    assert ast.dump(Untyped().visit(ast.parse(bundle.source()))) == ast.dump(
        ast.Module([ast.parse("from __future__ import annotations").body[0], *statements], [])
    )


class Untyped(ast.NodeTransformer):
    """Deletes the annotations of functions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


def test_a_line_outside_the_modules_is_told_apart() -> None:
    assert bundle.locate(1) == ("bundle.py", 0)
    for outside in (0, len(bundle.source().splitlines()) + 1):
        with pytest.raises(ValueError, match="has no line"):
            bundle.locate(outside)


def test_a_traceback_of_this_version_is_annotated() -> None:
    number = bundle.source().decode().splitlines().index("def main():") + 1
    said = f'  File "/home/fleet/bin/{bundle.sha256()}.py", line {number}, in <module>\n  File "/elsewhere.py", line 3'
    first, second = bundle.annotate(said).splitlines()
    _, own = bundle.locate(number)
    assert first.endswith(f"line {number} (main.py:{own}), in <module>")
    assert second == '  File "/elsewhere.py", line 3'


def test_nothing_in_the_bundle_is_newer_than_python_3_8() -> None:
    """The parser refuses newer syntax, but not the newer parameter `strict` of zip."""
    tree = ast.parse(bundle.source(), feature_version=(3, 8))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if any(keyword.arg == "strict" for keyword in call.keywords)]


def test_the_traceback_of_a_session_leads_to_its_module(tmp_path: Path) -> None:
    path = tmp_path / f"{bundle.sha256()}.py"
    path.write_bytes(bundle.source())
    argv = [sys.executable, "-I", "-S", str(path), "serve"]
    done = subprocess.run(argv, input=b"poll many\n", capture_output=True, check=False, timeout=patient(60))
    lines = bundle.annotate(done.stderr.decode()).splitlines()
    (found,) = [re.search(r"line (\d+) \(main\.py:(\d+)\), in serve", line) for line in lines if ", in serve" in line]
    assert found
    locate = [sys.executable, "-m", "workers.supervisor.bundle", "--locate", found[1]]
    assert subprocess.check_output(locate, cwd=PACKAGE.parents[1], text=True) == f"main.py:{found[2]}\n"
