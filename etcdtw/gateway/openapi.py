"""``/openapi.json``: what the JSON gateway takes and answers, for tools that read OpenAPI 3.

Made of the same tables as the gateway itself, so that neither can say what the other does not.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from etcdtw.gateway.pages import JSON, Answer, Arguments
from etcdtw.gateway.routes import ROUTES, Route
from etcdtw.gateway.transcoding.tables import (
    BOOL,
    BYTES,
    ENUM,
    INT32,
    INT64,
    MESSAGE,
    STRING,
    UINT32,
    UINT64,
    Field,
    Table,
)
from etcdtw.grpc.call import BIDI_STREAM, UNARY

PATH: Final = b"/openapi.json"
TITLE: Final = "etcd v3, as JSON"
VERSION: Final = "3.7"
_TYPES: Final[dict[int, dict[str, Any]]] = {
    BOOL: {"type": "boolean"},
    BYTES: {"type": "string", "format": "byte"},
    INT32: {"type": "integer", "format": "int32"},
    INT64: {"type": "string", "format": "int64"},
    STRING: {"type": "string"},
    UINT32: {"type": "integer", "format": "int64"},
    UINT64: {"type": "string", "format": "uint64"},
}
_ERROR: Final = "Error"
_ERROR_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "code": {"type": "integer", "format": "int32", "description": "the code of gRPC"},
        "message": {"type": "string"},
    },
}


def openapi_page(_arguments: Arguments) -> Answer:
    """Answer with the whole document."""
    return Answer(200, _document(), JSON)


@cache
def _document() -> bytes:
    schemas: dict[str, Any] = {_ERROR: _ERROR_SCHEMA}
    paths = {}
    for path, route in ROUTES.items():
        for table in (route.request, route.answer):
            _add(schemas, table)
        paths[path.decode()] = {"post": _operation(path.decode(), route)}
    document = {
        "openapi": "3.0.3",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _operation(path: str, route: Route) -> dict[str, Any]:
    answer = _reference(route.answer.full_name)
    error = _reference(_ERROR)
    told = "the answer"
    if route.kind != UNARY:
        told = "a line of JSON for each message"
        answer = {"type": "object", "properties": {"result": answer, "error": error}}
    takes = "one message after the other" if route.kind == BIDI_STREAM else "one message"
    service, _, method = route.method.rpartition("/")
    return {
        "operationId": path.removeprefix("/v3/").replace("/", "_").replace("-", "_"),
        "tags": [service.rpartition(".")[2]],
        "summary": f"{service.rpartition('.')[2]}.{method}",
        "requestBody": {
            "description": takes,
            "content": _content(_reference(route.request.full_name)),
        },
        "responses": {
            "200": {"description": told, "content": _content(answer)},
            "default": {"description": "what it failed with", "content": _content(error)},
        },
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {JSON.decode(): {"schema": schema}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _add(schemas: dict[str, Any], table: Table) -> None:
    """Add a message, and those within it."""
    if table.full_name in schemas:
        return
    properties: dict[str, Any] = {}
    schemas[table.full_name] = {"type": "object", "properties": properties}
    for field in table.by_tag.values():
        properties[field.name] = _schema(field)
        if field.kind == MESSAGE:
            _add(schemas, field.table)


def _schema(field: Field) -> dict[str, Any]:
    if field.kind == MESSAGE:
        found = _reference(field.table.full_name)
    elif field.kind == ENUM:
        found = {"type": "string", "enum": list(field.enum_numbers)}
    else:
        found = _TYPES[field.kind]
    return {"type": "array", "items": found} if field.is_list else found
