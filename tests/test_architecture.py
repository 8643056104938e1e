"""The shape of the code, held by tests: mirrors, sizes, layers, and that each gate can fail."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llmgateway"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
MOST_LINES, MOST_FUNCTION_LINES = 400, 50
# Modules without logic of their own, each tested through what uses it.
UNMIRRORED = {
    "admin/operations.py": "tested through its routes in tests/admin/test_routes.py",
    "asgi.py": "the application of tests/e2e",
    "cli/conform/endings.py": "values only",
    "cli/conform/shapes.py": "tested by the checks that hold answers against them, in tests/cli/conform",
    "control/ground.py": "values that all of tests/control stand on",
    "domain/call.py": "values only",
    "domain/endpoints.py": "a table, compared with the routes in tests/edge/test_openapi.py",
    "domain/identity.py": "values only",
    "domain/live.py": "values only",
    "domain/people.py": "values only",
    "domain/policy.py": "values, tested with what is decided in tests/control/test_policy.py",
    "domain/projects.py": "values only",
    "domain/saml.py": "values only",
    "domain/refusals.py": "values only",
    "domain/terms.py": "values only",
    "domain/admission.py": "protocols only",
    "domain/moving.py": "protocols only",
    "domain/ports.py": "protocols only",
    "domain/spool.py": "protocols only",
    "domain/upkeep.py": "protocols only",
    "stores/limits/limiter_calls.py": "values only",
    "stores/mongo_sums.py": "tested by tests/stores/upkeep_contract.py on a real server",
    "stores/sqlite_sums.py": "tested by tests/stores/upkeep_contract.py",
    "edge/asgi.py": "tested in tests/edge/test_protocol.py under load",
    "edge/exchange.py": "tested over real sockets in tests/edge/test_protocol.py",
    "edge/server.py": "options only",
    "edge/worker.py": "gunicorn's worker of tests/e2e",
    "portal/saml_pages.py": "each asks the federation: tests/portal/test_federation.py",
    "portal/visit.py": "values only",
}


def mirror_of(module: Path) -> Path:
    inside = module.relative_to(PACKAGE)
    return ROOT / "tests" / inside.parent / f"test_{inside.name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_has_its_mirror_or_a_reason(module: Path) -> None:
    name = str(module.relative_to(PACKAGE))
    assert mirror_of(module).exists() != (name in UNMIRRORED), mirror_of(module).relative_to(ROOT)


def test_no_module_is_too_long() -> None:
    lengths = {str(module.relative_to(ROOT)): len(module.read_text().splitlines()) for module in MODULES}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_function_is_too_long() -> None:
    long = [
        f"{module.relative_to(ROOT)}:{function.name}"
        for module in MODULES
        for function in functions(module)
        if (function.end_lineno or 0) - function.lineno >= MOST_FUNCTION_LINES
    ]
    assert not long


def test_no_module_has_a_name_without_a_criterion() -> None:
    without = {"util", "utils", "helper", "helpers", "common", "base", "manager", "handler"}
    assert not [module for module in MODULES if module.stem in without]


def lint_imports(root: Path) -> int:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, check=False).returncode


def test_the_layers_hold() -> None:
    assert lint_imports(ROOT) == 0


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("domain/catalog.py", "import llmgateway.edge.errors"),
        ("flow/admit.py", "import llmgateway.flow.relay"),
        ("providers/openai.py", "import asyncio"),
        ("control/keys.py", "import starlette"),
        ("edge/programs.py", "import llmgateway.settings"),
    ],
)
def test_the_gate_can_fail(module: str, planted: str, tmp_path: Path) -> None:
    """A contract that a planted violation does not break is no contract."""
    shutil.copytree(PACKAGE, tmp_path / "llmgateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "llmgateway" / module
    target.write_text(f"{target.read_text()}\n{planted}\n")
    assert lint_imports(tmp_path) != 0


def test_a_package_without_a_layer_is_refused(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "llmgateway", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "llmgateway" / "utils").mkdir()
    (tmp_path / "llmgateway" / "utils" / "__init__.py").write_text('"""Anything."""\n')
    assert lint_imports(tmp_path) != 0


def float_arithmetic(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{module.name}: {node.value}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield f"{module.name}: a division at line {node.lineno}"


def test_money_is_integers() -> None:
    assert not list(float_arithmetic(PACKAGE / "domain" / "pricing.py"))


OWNERS = {
    "bson": {"stores/mongo.py"},
    "pymongo": {
        "stores/mongo.py",
        "stores/mongo_archive.py",
        "stores/mongo_owners.py",
        "stores/mongo_sums.py",
    },
    "redis": {"stores/redis.py"},
    "schedule": {"jobs/timetable.py"},
    "sqlite3": {"stores/sqlite_file.py", "stores/sqlite_ledger.py", "stores/sqlite_sums.py"},
    "prometheus_client": {"observability/exposition.py", "observability/metrics.py"},
    "httptools": {"edge/protocol.py", "upstream/connection.py"},
    "python_multipart": {"edge/forms.py"},
    "yaml": {"settings/yaml_tree.py"},
    "argon2": {"control/accounts.py"},
    "itsdangerous": {"portal/sessions.py"},
    "jinja2": {"portal/page.py"},
    "babel": {"portal/words.py"},
    "onelogin": {"portal/saml.py", "portal/saml_self_test.py"},
    "lxml": {"portal/saml.py", "portal/saml_guard.py"},
    "xmlsec": {"portal/saml.py"},
    "sse_starlette": {"portal/events.py"},
    "opentelemetry": {"observability/traces.py"},
}


def imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_each_driver_has_one_owner() -> None:
    strangers = {
        (library, name)
        for module in MODULES
        for library in imported(module)
        if library in OWNERS and (name := str(module.relative_to(PACKAGE))) not in OWNERS[library]
    }
    assert not strangers
