"""Many rows in one JSON document: as a table of a statement, on any database.

A driver sends each row of an update by itself and writes every value of an insert into the
statement's text; that takes most of the time of a message of reports. A document is one parameter.
"""

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

# MariaDB compares it with a column of any character set by that column's index.
Id = sa.String(36).with_variant(mysql.VARCHAR(36, charset="ascii"), "mysql", "mariadb")


class _Field(sa.ColumnClause[Any]):
    inherit_cache = True


class Records(sa.TableClause):
    """The objects in the JSON array ``document``, one row each, with these columns.

    ``document`` is an expression: a parameter (:func:`document` makes its value), or the column of
    a table that comes before in the same FROM. A key that an object lacks is NULL.
    """

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012  SQLAlchemy's own form
        *sa.TableClause._traverse_internals,
        ("document", InternalTraversal.dp_clauseelement),
    ]

    def __init__(
        self, name: str, document: sa.ColumnElement[Any], columns: Mapping[str, Any]
    ) -> None:
        super().__init__(name, *(_Field(key, type_) for key, type_ in columns.items()))
        self.document = document


def document(rows: Iterable[Mapping[str, Any]]) -> str:
    """The JSON array of ``rows``; their times are stored in UTC."""
    return json.dumps(list(rows), default=_stored, separators=(",", ":"))


def _stored(value: object) -> str:
    if not isinstance(value, datetime.datetime):
        raise TypeError(f"not a value of a row: {value!r}")
    # As SQLite's columns have it; the other two read it.
    return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, each with all columns of ``table``.

    PostgreSQL reads them from one document: half the CPU of values in the statement's text. The
    drivers of the other two are as fast with values: MariaDB spends on the document what its
    driver saves, and SQLite runs in this process.
    """
    if connection.dialect.name != "postgresql":
        connection.execute(sa.insert(table), rows)
        return
    columns = {column.name: column.type for column in table.c}
    new = Records("new", sa.bindparam("new", type_=sa.Text()), columns)
    statement = sa.insert(table).from_select(list(columns), sa.select(new))
    connection.execute(statement, {"new": document(rows)})


@compiles(Records, "postgresql")
def _of_postgresql(table: Records, compiler: SQLCompiler, **kwargs: Any) -> str:
    columns = ", ".join(f"{name} {type_}" for name, type_ in _columns(table, compiler))
    return f"json_to_recordset({_document(table, compiler)}) AS {_name(table, compiler)}({columns})"


@compiles(Records, "mysql", "mariadb")
def _of_mariadb(table: Records, compiler: SQLCompiler, **kwargs: Any) -> str:
    columns = ", ".join(
        f"{name} {type_} PATH '$.{column.name}'"
        for column, (name, type_) in zip(table.c, _columns(table, compiler), strict=True)
    )
    rows = f"{_document(table, compiler)}, '$[*]' COLUMNS ({columns})"
    return f"JSON_TABLE({rows}) AS {_name(table, compiler)}"


@compiles(Records, "sqlite")
def _of_sqlite(table: Records, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"json_each({_document(table, compiler)}) AS {_name(table, compiler)}"


@compiles(_Field, "sqlite")
def _field_of_sqlite(field: _Field, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"json_extract({_name(field.table, compiler)}.value, '$.{field.name}')"


@compiles(_Field)
def _field(field: _Field, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.visit_column(field, **kwargs)


def _document(table: Records, compiler: SQLCompiler) -> str:
    return compiler.process(table.document)


def _name(table: Any, compiler: SQLCompiler) -> str:
    return compiler.preparer.quote(table.name)


def _columns(table: Records, compiler: SQLCompiler) -> list[tuple[str, str]]:
    types = compiler.dialect.type_compiler_instance
    return [(compiler.preparer.quote(each.name), types.process(each.type)) for each in table.c]
