"""Writes `docs/api.md` from the docstrings: `python docs/make_api.py`.

It reads the source, not the imported modules, so that signatures are shown as they were written.
"""

import ast
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
INTRODUCTION = """# API reference

Written by `make docs` from the docstrings. First the public names, `import jaxmod as jm`; then, for
those who build on the parts, the other names of each module.
"""


class Module(NamedTuple):
    """A parsed file."""

    lines: list[str]
    doc: str
    exported: list[str]
    imported: dict[str, str]
    """Name -> the module it is taken from."""
    definitions: dict[str, ast.FunctionDef | ast.ClassDef]


def render() -> str:
    """Returns the page."""
    modules = {module_name(path): parse(path.read_text()) for path in sorted(ROOT.glob("jaxmod/**/*.py"))}
    package = modules.pop("jaxmod")
    public = {name: source for name, source in package.imported.items() if name in package.exported}
    parts = [INTRODUCTION, "## jaxmod\n", package.doc]
    for name, source in sorted(public.items(), key=lambda item: item[0].lower()):
        parts.append(f"### jm.{name}\n\n{signature(name, modules[source])}\n")
        parts.append(f"```text\n{docstring(name, modules[source])}\n```")
    for path, module in modules.items():
        names = [n for n in module.exported if n in module.definitions and public.get(n) != path]
        if names:
            parts += [f"## {path}\n", module.doc]
        for name in names:
            first_paragraph = docstring(name, module).split("\n\n")[0]
            parts.append(f"### {path.removeprefix('jaxmod.')}.{name}\n\n{signature(name, module)}\n")
            parts.append(first_paragraph)
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def module_name(path: Path) -> str:
    """Returns `jaxmod.masks` for `jaxmod/masks.py`, `jaxmod.train` for its `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def parse(source: str) -> Module:
    """Returns what the page needs of a file."""
    tree = ast.parse(source)
    exported, imported, definitions = [], {}, {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported = list(ast.literal_eval(node.value))
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.update({alias.name: node.module for alias in node.names})
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node.name] = node
    return Module(source.splitlines(), ast.get_docstring(tree) or "", exported, imported, definitions)


def docstring(name: str, module: Module) -> str:
    """Returns the docstring of a function or class, cleaned of its indentation."""
    return ast.get_docstring(module.definitions[name]) or ""


def signature(name: str, module: Module) -> str:
    """Returns the head of a function; the head and the documented fields of a class."""
    node = module.definitions[name]
    head = module.lines[node.lineno - 1 : node.body[0].lineno - 1]
    if isinstance(node, ast.ClassDef):
        for part in node.body[1:]:
            is_text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
            if is_text or isinstance(part, ast.AnnAssign):
                head += module.lines[part.lineno - 1 : part.end_lineno]
    text = textwrap.dedent("\n".join(head)).removesuffix(":")
    return f"```python\n{text}\n```"


if __name__ == "__main__":
    PAGE.write_text(render())
