"""Modules of an experiment's own: Python files and packages in the folder of its file, which it imports by their names."""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, ModuleType

KEPT = "code"
"""The folder beside the experiment file of a workdir that holds copies of its modules."""

PARSED_AT_MOST = 100
"""How often a file is parsed before a SystemError of Python's is taken for its own fault."""


def own_modules(experiment: Path) -> dict[str, Path]:
    """The files of an experiment's own modules by the names they are imported by, found by reading, not by running.

    What is installed, or part of Python, is no module of its own, whatever lies beside the file.

    Args:
      experiment: the experiment file; a file that can't be parsed has none.
    """
    found: dict[str, Path] = {}
    files = [("", experiment)]
    while files:
        for name in _imported(*files.pop()):
            file = _beside(experiment, name)
            if file is not None and name not in found and not _is_another(name, file):
                found[name] = file
                files.append((name, file))
    return dict(sorted(found.items()))


def _imported(module: str, file: Path) -> Iterator[str]:
    """The names of the modules that a file imports: `a` and `a.b` of `from a import b`, which may be a module or not.

    Args:
      module: the name of the file's module, for imports that are relative to its package; empty for the experiment file.
      file: to read; one that can't be parsed imports nothing.
    """
    try:
        tree = parsed(file)
    except (OSError, ValueError, SyntaxError):
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (base := _base(node, package)):
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: count + 1]) for count in range(len(parts)))


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a Python file, also while other threads parse (TensorFlow's AutoGraph does).

    Before Python 3.11.8 and 3.12.2 two threads that parse at once may get a SystemError (python/cpython#106905); then it is
    tried again.

    Raises:
      OSError, ValueError, SyntaxError: if the file can't be read or parsed.
    """
    text = file.read_text(encoding="utf-8")
    for _ in range(PARSED_AT_MOST - 1):
        with suppress(SystemError):
            return ast.parse(text)
    return ast.parse(text)


def _base(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of what is imported from, in a module of this package; empty where there is none."""
    if not node.level:
        return node.module or ""
    parents = package.split(".") if package else []
    kept = len(parents) - node.level + 1
    return ".".join([*parents[:kept], *([node.module] if node.module else [])]) if kept > 0 else ""


def _beside(experiment: Path, name: str) -> Path | None:
    """The file of a module beside the experiment file, or among the copies of a workdir."""
    for folder in (experiment.parent, experiment.parent / KEPT):
        path = folder.joinpath(*name.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _is_another(name: str, file: Path) -> bool:
    """Whether Python finds another module of this name, which is installed or a part of it; a copy in a workdir is none."""
    top, known = name.partition(".")[0], sys.modules.get(name)
    if KEPT in file.parts[-2 - name.count(".") - (file.name == "__init__.py") : -1]:
        return False
    if known is not None:
        return not (_is_own(known) or _is_of(known.__spec__, file))
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [""])
    return not any(Path(place).resolve().is_relative_to(_root(name, file)) for place in places)


def _root(name: str, file: Path) -> Path:
    """The folder that a module is imported from."""
    return file.resolve().parents[name.count(".") + (file.name == "__init__.py")]


def _is_of(spec: importlib.machinery.ModuleSpec | None, file: Path) -> bool:
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file.resolve()


class _FromSource(importlib.machinery.SourceFileLoader):
    """Neither reads compiled code nor writes any beside the file."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load(name: str, file: Path) -> ModuleType:
    """The experiment file as a module of this name, its own modules loaded anew from beside it.

    One that can't be imported is an error where, and when, plain Python has one: not in `try: ... except ImportError`, and
    not before a function that imports it is called.
    """
    modules = own_modules(file)
    finder = _Finder(modules)
    for each in finder.names:
        sys.modules.pop(each, None)  # of another experiment, or of an earlier state of the file
    sys.meta_path[:] = [each for each in sys.meta_path if not (isinstance(each, _Finder) and each.left)]
    sys.meta_path.insert(0, finder)
    try:
        experiment = _executed(name, file)
        for each in modules:
            if each not in finder.asked:  # for functions that import it when they are called
                with suppress(Exception):
                    importlib.import_module(each)
        finder.left = any(each not in sys.modules for each in modules)
        return experiment
    finally:
        if not finder.left:
            sys.meta_path.remove(finder)


def _is_own(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), _FromSource)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of one experiment, and the folders without `__init__.py` that they are in."""

    def __init__(self, modules: dict[str, Path]):
        self._modules = modules
        self._spaces: dict[str, list[str]] = {}
        for name, file in modules.items():
            root, parts = _root(name, file), name.split(".")[:-1]
            for count in range(1, len(parts) + 1):
                space, folder = ".".join(parts[:count]), str(root.joinpath(*parts[:count]))
                if space not in modules and folder not in self._spaces.setdefault(space, []):
                    self._spaces[space].append(folder)
        self.asked: set[str] = set()
        """Modules that something has imported, or tried to."""
        self.left = False
        """Whether it stays after the experiment is loaded, for a module that could not be imported."""

    @property
    def names(self) -> set[str]:
        """All that it finds."""
        return {*self._modules, *self._spaces}

    def find_spec(self, fullname, path=None, target=None):
        self.asked.add(fullname)
        if fullname in self._spaces:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = self._spaces[fullname]
            return spec
        file = self._modules.get(fullname)
        return None if file is None else _spec(fullname, file)


def _spec(name: str, file: Path) -> importlib.machinery.ModuleSpec:
    places = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(
        name, file, loader=_FromSource(name, str(file)), submodule_search_locations=places
    )
    assert spec is not None
    return spec


def _executed(name: str, file: Path) -> ModuleType:
    spec = _spec(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module
