"""Translates our Mermaid diagrams for graphviz, so that the site needs no script from elsewhere.

A forge draws a fenced block ``mermaid`` by itself. Our diagrams use a small part of the language:
lines of ``A --> B --> C``, with a label as ``A["text"]`` of a node or ``A --> B: text`` of an
arrow.
"""

import itertools
import re

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_DIRECTIONS = {"flowchart LR": "LR", "flowchart TB": "TB", "stateDiagram-v2": "TB"}
_END = "[*]"
_NODE = re.compile(r'(\w+)(?:\["([^"]*)"\])?')
_DOT = 'shape=circle, width=0.15, label="", fillcolor="#2a4e68"'
_LOOK = """\
bgcolor=transparent; ranksep=0.35; nodesep=0.25;
node [shape=box, style="rounded,filled", fillcolor="#eef3f8", color="#2a4e68",
      fontname="Helvetica,Arial,sans-serif", fontsize=11, height=0.35];
edge [color="#2a4e68", fontname="Helvetica,Arial,sans-serif", fontsize=9];"""


def with_graphviz(page: str) -> str:
    """The Markdown with every diagram in graphviz's language; raises ValueError as :func:`dot`."""
    return _BLOCK.sub(lambda block: f"```{{graphviz}}\n{dot(block[1])}```", page)


def dot(diagram: str) -> str:
    """The diagram in graphviz's language; raises ValueError for a line it does not know."""
    kind, *lines = [line.strip() for line in diagram.splitlines() if line.strip()]
    if kind not in _DIRECTIONS:
        raise ValueError(f"not among the diagrams that are drawn here: {kind}")
    drawn = ["digraph {", f"rankdir={_DIRECTIONS[kind]};", _LOOK]
    for line in lines:
        chain, _, label = line.partition(": ")
        *before, last = chain.split(" --> ")
        places = [*(_node(word, "begin", drawn) for word in before), _node(last, "end", drawn)]
        text = f' [label="{label}"]' if label else ""
        drawn += [f"{a} -> {b}{text};" for a, b in itertools.pairwise(places)]
    return "\n".join([*drawn, "}", ""])


def _node(word: str, end: str, drawn: list[str]) -> str:
    """The name of a node; how it looks is added to ``drawn``. ``[*]`` is the one named ``end``."""
    if word == _END:
        drawn.append(f'"{end}" [{_DOT}];')
        return f'"{end}"'
    found = _NODE.fullmatch(word)
    if found is None:
        raise ValueError(f"not a node: {word}")
    if found[2] is not None:
        drawn.append(f'"{found[1]}" [label="{found[2]}"];')
    return f'"{found[1]}"'
