"""The package keeps its layers: who imports whom, who touches files, and that importing does
nothing.

Read from the source with `ast`, so that a layer is broken by what is written, not by what happens
to run.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fsp_dynamics"
LAYERS = {
    "errors": 1,
    "arrays": 1,
    "display": 1,
    "reading": 1,
    "writing": 1,
    "folders": 1,
    "locks": 1,
    "streams": 1,
    "screen": 1,
    "settings": 1,
    "loopback": 1,
    "plotting": 1,
    "models": 2,
    "datasets": 2,
    "kernels": 3,
    "solvers": 3,
    "learning": 4,
    "training": 5,
    "torch_backend": 6,
    "layerwise": 6,
    "analysis": 7,
    "experiments": 8,
    "tables": 9,
    "watch": 9,
    "cli": 9,
    "explorer": 9,
    "sklearn": 9,
    "__main__": 9,
}
FACE = "fsp_dynamics"
# The modules that are solvers, beside what they share.
SOLVERS = {
    "solvers/reference",
    "solvers/numba_ode",
    "solvers/fixed_point",
    "torch_backend/ode",
    "torch_backend/fixed_point",
}
# The only ways from a lower layer to a higher one: lazy lines, and registries of import strings.
UPWARD = {"models/network": {"torch_backend/module"}}
REGISTRIES = ("solvers", "learning/rules", "training/engine", "layerwise/names", "experiments/trainer")
# Who may import what, as folders or files of the package.
CONFINED = {
    "numba": ("kernels",),
    "llvmlite": ("kernels",),
    "matplotlib": ("plotting",),
    "torch": ("torch_backend", "layerwise", "experiments/layerwise", "experiments/jobs"),
    "torchdiffeq": ("torch_backend/ode", "torch_backend/steps"),
    "dask": (),  # distributed asks it
    "distributed": ("experiments/sweeps/cluster",),
    "tensorboardX": ("experiments/tensorboard",),
    "subprocess": ("experiments",),
    "multiprocessing": ("experiments",),
    "joblib": ("experiments",),
    "shutil": ("experiments", "datasets", "writing"),
    "tempfile": ("experiments", "datasets", "kernels/cache_places"),
    "pooch": ("datasets",),
    "urllib": ("datasets",),
    "safetensors": ("experiments",),
    "nir": ("layerwise/nir_export",),
    "anywidget": ("explorer/widget",),
    "traitlets": ("explorer/widget",),
    "pickle": ("kernels/disk_cache",),  # as Numba keeps compiled code
    "fsp_dynamics.explorer": ("explorer", "cli", "__main__"),
}
FILE_MODULES = ("experiments", "datasets", "reading", "writing")
FILE_EXCEPTIONS = {
    # matplotlib has one place, so pictures are drawn there, into memory
    "plotting": ["figure.savefig"],
    # the package's own sources: compiled code is kept until one of them changes
    "kernels/field": ["file.read_bytes"],
    "kernels/disk_cache": ["open"],
    # compiled code
    "kernels/cache_places": ["os.open", "os.unlink", "os.open", "os.replace", "os.mkdir", "os.unlink"],
    "kernels/cache_turns": ["os.open", "os.unlink", "os.unlink"],
    "explorer/sources": [
        "(files(__package__) / 'script').iterdir",  # its own script, style sheet and page
        "part.read_text",
        "(files(__package__) / folder / name).read_text",
    ],
    "watch/server": ["(files(__package__) / 'page' / file).read_text"],  # its own page
    "explorer/replies": ["model.path(given).to_xarray().to_netcdf"],  # into memory: the browser saves it
    "streams": ["open", "os.open", "open", "os.open"],  # the null device
}
FILE_METHODS = {
    *(
        "open",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "mkdir",
        "rmdir",
        "unlink",
        "touch",
        "rename",
        "symlink_to",
        "iterdir",
    ),
    *("tofile", "savefig", "to_netcdf", "to_csv"),
}
FILE_FUNCTIONS = {
    *(
        "os.remove",
        "os.replace",
        "os.rename",
        "os.unlink",
        "os.makedirs",
        "os.mkdir",
        "os.open",
        "os.fsync",
        "os.kill",
        "os.fork",
        "os.system",
    ),
    *("np.save", "np.savez", "np.savez_compressed", "np.savetxt", "np.load", "np.loadtxt", "np.memmap", "np.fromfile"),
}


def module_name(path: Path) -> str:
    """`models/network` for fsp_dynamics/models/network.py; `solvers` for the folder's own
    __init__; `` for the face.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "/".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
EACH_MODULE = pytest.mark.parametrize("name", [name for name in MODULES if name])


def layer(name: str) -> int:
    return LAYERS[name.split("/")[0]]


def is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == m or name.startswith(f"{m}/") for m in modules)


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from (inner for other in node.orelse for inner in [other, *running_nodes(other)])
        else:
            yield node
            yield from running_nodes(node)


class Import(NamedTuple):
    module: str
    line: int


def resolve(module: str) -> str | None:
    """The module that `fsp_dynamics.a.b` names (the face is ``), or None for what is no module
    of the package.
    """
    parts = module.split(".")
    if parts[0] != FACE:
        return None
    name = "/".join(parts[1:])
    return name if name in MODULES else None


def imports(tree: ast.AST, package: str = FACE) -> list[Import]:
    """Every module that running the code may import. `package` is where relative imports start."""
    found = []
    for node in running_nodes(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:  # `from package import module` imports the module
                full = f"{module}.{alias.name}"
                found.append(Import(full if resolve(full) is not None else module, node.lineno))
    return found


def imports_of(name: str) -> list[Import]:
    folder = name if MODULES[name].stem == "__init__" else name.rpartition("/")[0]
    return imports(TREES[name], ".".join(filter(None, [FACE, *folder.split("/")])))


def misplaced_imports(name: str, found: list[Import]) -> list[str]:
    """What is wrong with these imports in that module, one line each."""
    wrong = []
    for module, line in found:
        target = resolve(module)
        if target == "":
            wrong.append(f"{name}:{line} imports the face")
        elif target is not None and layer(target) > layer(name) and target not in UPWARD.get(name, ()):
            wrong.append(f"{name}:{line} is on layer {layer(name)} and imports {target} on layer {layer(target)}")
        for library, modules in CONFINED.items():
            if (module == library or module.startswith(f"{library}.")) and not is_in(name, modules):
                wrong.append(f"{name}:{line} imports {library}, which belongs to {', '.join(modules) or 'no module'}")
    return wrong


def file_calls(tree: ast.AST) -> list[str]:
    """Calls that open, make or remove files, or start processes."""
    found = []
    for node in running_nodes(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).replace("numpy.", "np.")
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if called == "open" or called in FILE_FUNCTIONS or method in FILE_METHODS:
            found.append(called)
    return found


def import_time_statements(tree: ast.Module) -> list[str]:
    """Module-level statements that do more than name things, as `line: code`."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass)
    found = []
    for node in tree.body:
        guarded = isinstance(node, ast.If) and re.search(
            r"TYPE_CHECKING|__name__ == '__main__'", ast.unparse(node.test)
        )
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        registers = ast.unparse(node).startswith(
            "app.command("
        )  # as the decorator does, for commands that have commands
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = targets and all(isinstance(target, (ast.Name, ast.Tuple)) for target in targets)
        if not (isinstance(node, allowed) or names or guarded or docstring or registers):
            found.append(f"{node.lineno}: {ast.unparse(node).splitlines()[0]}")
    return found


def test_every_module_has_a_layer() -> None:
    assert {name.split("/")[0] for name in MODULES if name} <= set(LAYERS)


@EACH_MODULE
def test_imports_go_down_and_each_library_has_its_modules(name: str) -> None:
    assert misplaced_imports(name, imports_of(name)) == []


def test_solvers_do_not_know_each_other() -> None:
    for name in SOLVERS:
        others = (SOLVERS - {name}) & {resolve(module) for module, _ in imports_of(name)}
        assert not others, f"{name} imports {others}"


def runtime_graph() -> dict[str, set[str]]:
    """{module: the modules that running it may import}, inside functions too, but for the lazy
    lines of UPWARD.
    """
    graph = {}
    for name in MODULES:
        if name:
            targets = {resolve(module) for module, _ in imports_of(name)} - {None, "", name}
            graph[name] = {t for t in targets if t is not None} - UPWARD.get(name, set())
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The import circles, each as its modules in order (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            members = [stack.pop()]
            while members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1 or node in graph.get(node, ()):
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_there_is_no_import_circle() -> None:
    assert circles(runtime_graph()) == []


def test_a_circle_is_seen() -> None:
    graph = runtime_graph()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert "training/engine" in circles(graph | {"training/recipe": graph["training/recipe"] | {"training/engine"}})[0]


def import_strings(tree: ast.AST) -> list[str]:
    """The texts `fsp_dynamics.module:name` in code."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [text for text in texts if re.fullmatch(rf"{FACE}(\.\w+)+:\w+", text)]


@EACH_MODULE
def test_import_strings_stand_in_registries_alone_and_lead_somewhere(name: str) -> None:
    """A registry names what a higher layer has, and is the only way up beside UPWARD."""
    texts = import_strings(TREES[name])
    assert not texts or name in REGISTRIES
    for text in texts:
        module, _, attribute = text.partition(":")
        target = resolve(module)
        assert target is not None, text
        names = {getattr(node, "name", None) for node in TREES[target].body}
        assert attribute in names, f"{text}: no {attribute} in {target}"


def test_the_registries_hold_import_strings() -> None:
    assert all(import_strings(TREES[name]) for name in REGISTRIES)


def test_what_goes_up_is_one_lazy_line_each() -> None:
    for name, targets in UPWARD.items():
        lines = [line for module, line in imports_of(name) if resolve(module) in targets]
        top_level = {node.lineno for node in TREES[name].body}
        assert len(lines) == len(targets)
        assert not set(lines) & top_level, f"{name} imports {targets} when it is imported"


@EACH_MODULE
def test_files_and_processes_belong_to_experiments_and_datasets(name: str) -> None:
    if not is_in(name, FILE_MODULES):
        assert file_calls(TREES[name]) == FILE_EXCEPTIONS.get(name, [])


@EACH_MODULE
def test_modules_only_name_things(name: str) -> None:
    assert import_time_statements(TREES[name]) == []


def test_the_oracles_owe_nothing_to_what_they_judge() -> None:
    judged = {"kernels", "solvers", "learning", "analysis", "experiments"}
    tree = ast.parse((ROOT / "tests" / "oracles.py").read_text(encoding="utf-8"))
    met = {resolve(module) for module, _ in imports(tree)} - {None}
    assert not {name.split("/")[0] for name in met} & judged


# In a process of its own: everything is imported once, so that what other packages do on import is
# over; then our own modules alone once more, watched.
WATCHED_IMPORT = """
import importlib, json, os, pkgutil, random, sys
import fsp_dynamics, numpy as np

def import_all():
    import fsp_dynamics
    for module in pkgutil.walk_packages(fsp_dynamics.__path__, "fsp_dynamics."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

def world():
    return repr((sys.argv, dict(os.environ), np.random.get_state(), random.getstate(), np.geterr(), os.getcwd()))

import_all()
for name in [n for n in sys.modules if n.split(".")[0] == "fsp_dynamics"]:
    del sys.modules[name]
seen = []

def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes or event.split(".")[0] in ("socket", "subprocess", "shutil", "tempfile", "urllib") or event in (
        "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.fork", "os.posix_spawn", "os.system", "os.putenv"
    ):
        seen.append([event, repr(args)])

before = world()
sys.addaudithook(watch)
import_all()
print(json.dumps({"seen": seen, "same_world": before == world()}))
"""


@pytest.mark.cli
def test_importing_everything_does_nothing(tmp_path: Path) -> None:
    """No file, process, socket, variable, seed or argument is touched (the compiler's own cache
    aside: it is off here).
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "agg",
    }
    command = [sys.executable, "-c", WATCHED_IMPORT, "--help", "no-such-command"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"seen": [], "same_world": True}
    assert list(tmp_path.iterdir()) == []


# The rules themselves can fail.


@pytest.mark.parametrize(
    ("name", "code", "complaint"),
    [
        (
            "models/network",
            "from fsp_dynamics.solvers.equilibrium import Status",
            "is on layer 2 and imports solvers/equilibrium on layer 3",
        ),
        (
            "models/network",
            "def f():\n    import fsp_dynamics.experiments",
            "is on layer 2 and imports experiments on layer 8",
        ),
        ("models/network", "from ..solvers import equilibrium", "imports solvers/equilibrium"),
        ("models/network", "from .. import solvers", "imports solvers on layer 3"),
        (
            "learning/rules/hebbian",
            "from fsp_dynamics.analysis import alignment",
            "is on layer 4 and imports analysis/alignment on layer 7",
        ),
        ("experiments/config", "import fsp_dynamics as fsp", "imports the face"),
        ("experiments/config", "from fsp_dynamics import Network", "imports the face"),
        ("solvers/reference", "from numba import njit", "imports numba, which belongs to kernels"),
        ("learning/rules/hebbian", "import matplotlib.pyplot as plt", "imports matplotlib, which belongs to plotting"),
        ("learning/rules/hebbian", "import torch", "imports torch, which belongs to torch_backend, layerwise"),
        ("experiments/config", "import pickle", "imports pickle, which belongs to kernels/disk_cache"),
        ("cli", "import subprocess", "imports subprocess, which belongs to experiments"),
    ],
)
def test_a_misplaced_import_is_seen(name: str, code: str, complaint: str) -> None:
    package = ".".join([FACE, *name.split("/")[:-1]])
    wrong = misplaced_imports(name, imports(ast.parse(code), package))
    assert any(complaint in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("errors", "if TYPE_CHECKING:\n    from fsp_dynamics.solvers.equilibrium import Equilibrium"),
        (
            "solvers/reference",
            "from fsp_dynamics.solvers.equilibrium import Status\nfrom fsp_dynamics.models import rate\n"
            "import numpy as np",
        ),
        ("kernels/field", "import numba"),
        ("experiments/config", "import subprocess"),
    ],
)
def test_an_import_in_its_place_is_let_be(name: str, code: str) -> None:
    assert misplaced_imports(name, imports(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    ["open('x')", "path.write_text('')", "os.replace(a, b)", "np.save('x', a)", "numpy.load(x)", "figure.savefig('x')"],
)
def test_a_file_call_is_seen(code: str) -> None:
    assert file_calls(ast.parse(f"def f():\n    {code}")) == [code.partition("(")[0].replace("numpy", "np")]


@pytest.mark.parametrize(
    "code",
    [
        "np.random.seed(0)",
        "main()",
        "for x in y: pass",
        "if sys.argv: x = 1",
        "os.environ['A'] = 'b'",
        "numpy.random.x = 1",
    ],
)
def test_a_statement_that_runs_on_import_is_seen(code: str) -> None:
    assert import_time_statements(ast.parse(code))
