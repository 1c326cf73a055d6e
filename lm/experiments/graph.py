"""A graph of nodes as an ordered list, and as JSON: how processes are told of it, and what a folder's names mean."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from lm.experiments import nodes
from lm.experiments.nodes import Made, Node

KINDS: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        nodes.Human,
        nodes.Synthetic,
        nodes.Joined,
        nodes.Subsample,
        nodes.Run,
        nodes.Sampled,
        nodes.Proposal,
        nodes.Edited,
    )
}


def ordered(wanted: Iterable[Node]) -> list[Node]:
    """Return nodes and all that they are made of, each once and after its parts."""
    found: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key not in found:
            for part in node.parts():
                visit(part)
            found[node.key] = node

    for node in wanted:
        visit(node)
    return list(found.values())


def made(wanted: Iterable[Node]) -> list[Made]:
    """Return those that take time, in that order."""
    return [node for node in ordered(wanted) if isinstance(node, Made)]


def to_json(wanted: Iterable[Node]) -> dict[str, Any]:
    """Return {key: {"kind": ..., fields}} in the order of `ordered`; other nodes stand as {"node": key}."""
    return {
        node.key: {
            "kind": type(node).__name__,
            **{field.name: _plain(getattr(node, field.name)) for field in dataclasses.fields(node)},
        }
        for node in ordered(wanted)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return {"node": value.key}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def from_json(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Node]:
    """Return the nodes of `to_json` by key."""
    found: dict[str, Node] = {}

    def value(given: Any) -> Any:
        if isinstance(given, dict):
            return found[given["node"]]
        return tuple(value(one) for one in given) if isinstance(given, list) else given

    for key, fields in data.items():
        kind = KINDS[fields["kind"]]
        found[key] = kind(**{name: value(given) for name, given in fields.items() if name != "kind"})
    return found
