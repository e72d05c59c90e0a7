"""Error types are declared once: the code names members, never strings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import agent_flows
from agent_flows.errors import ErrorType, declared, remedy
from agent_flows.report import TaskError

PACKAGE = Path(agent_flows.__file__).parent
MODULES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")
}
# The title of an HTTP error.
OTHER_MEANINGS = {("server/standalone/api/operation.py", "Conflict")}


def error_types(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that are given as the type of an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name in ("TaskError", "Uncompilable") and node.args:
                yield node.args[0]


def test_no_error_is_built_from_a_string_literal() -> None:
    literals = [
        (module, node.lineno)
        for module, tree in MODULES.items()
        for node in error_types(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    assert literals == []


def test_the_name_of_an_error_type_is_written_once() -> None:
    again = {
        (module, node.value)
        for module, tree in MODULES.items()
        if module != "errors.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and declared(node.value) is not None
    }
    assert again == OTHER_MEANINGS


def test_every_declared_type_is_used() -> None:
    used = {
        node.attr
        for module, tree in MODULES.items()
        if module != "errors.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    # Python's own: the runner reports them by the name of the exception.
    python = {"FILE_NOT_FOUND", "PERMISSION_ERROR", "MEMORY_ERROR"}
    assert set(ErrorType.__members__) - used == python


def test_every_type_is_explained_to_operators_and_projects() -> None:
    for member in ErrorType:
        assert all((member.cause, member.remedy, member.project)), member


def test_the_type_of_an_error_is_plain_text_on_the_wire() -> None:
    assert type(TaskError(ErrorType.TIMEOUT, "no answer").type) is str


def test_the_type_of_a_newer_agent_is_reported_as_a_defect() -> None:
    assert declared("NewType") is None
    assert "report it as a defect" in remedy("NewType")
