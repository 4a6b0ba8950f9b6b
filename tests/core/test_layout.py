"""How the code is laid out: no import circles, no function longer than a screen or two."""

import ast
from pathlib import Path

import pytest

import fusemix_core

PACKAGE = Path(fusemix_core.__file__).parent
PACKAGES = [p.parent for p in [PACKAGE / "x", *PACKAGE.parent.glob("plugins/*/src/*/__init__.py")]]
LONGEST = 60
"""Lines of a function, its signature and docstring included."""


@pytest.fixture(scope="module")
def modules():
    """Module name → syntax tree. Of this module: a million objects that stay make each collection
    of garbage, of which a run asks for several, take a second."""
    paths = {path: path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")}
    return {
        ".".join(name.with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path, name in paths.items()
    }


def imported(tree, names):
    """The modules that a file imports anywhere: in functions and for types as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in names else node.module


def circle(imports):
    """Modules that import each other in a circle, in order, or nothing."""
    done, path = set(), []

    def follow(module):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        path.append(module)
        found = next(filter(None, map(follow, sorted(imports[module]))), [])
        path.pop()
        done.add(module)
        return found

    return next(filter(None, map(follow, imports)), [])


def test_no_module_imports_itself_through_others(modules):
    names = modules.keys()
    imports = {name: {*imported(tree, names)} - {name} for name, tree in modules.items()}
    assert len(imports) > 150 and imports["fusemix_core.jobs.align"]
    assert circle(imports) == []


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_functions_fit_a_screen(modules):
    long = {
        f"{node.name} in {name}": node.end_lineno - node.lineno + 1
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert len(long) > 1000
    assert {name: lines for name, lines in long.items() if lines > LONGEST} == {}


def test_no_module_hides_a_name_of_its_package():
    """Else `from package import name` gives one or the other, by what was imported before."""
    for package in PACKAGES:
        inner = {path.stem for path in package.glob("*.py")}
        inner |= {path.parent.name for path in package.glob("*/*.py")}
        for node in ast.walk(ast.parse((package / "__init__.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module != package.name:
                assert not inner & {alias.asname or alias.name for alias in node.names}, package


def test_encoders_draw_weights_without_seeding_what_they_do_not_put_back():
    """`torch.manual_seed` seeds every GPU's generator, and `fork_rng(devices=[])` keeps none."""
    paths = [path for package in PACKAGES for path in package.rglob("*.py")]
    seeding = {path.name for path in paths if "torch.manual_seed(0)" in path.read_text()}
    assert len(paths) > 200 and seeding == set()
