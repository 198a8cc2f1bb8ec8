"""Drawings of the graph behind a Tensor: `draw_graph` gives DOT text, `draw_svg` a picture, with no other program.

Time runs from left to right: what the user made on the left, the result on the right. The picture is drawn the classical
way (Sugiyama, Tagawa & Toda 1981): each op gets a layer, one after its latest input; an edge over several layers gets a
bend in each; the layers are ordered to cross few edges; the heights are relaxed towards the neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

from .tape import SELECT, Node
from .tensor import Tensor

Names = Mapping[str, Tensor]

LEAF, OP, RESULT = "#e3f1df", "#e8eefb", "#fdebd3"  # fill colours
LINE, GAP_X, GAP_Y, CHARACTER, PAD = 34, 36, 14, 6.7, 24  # sizes in pixels


def draw_graph(tensor: Tensor, names: Names | None = None) -> str:
    """The graph of ops behind `tensor`, in the DOT language of Graphviz.

    names: labels for leaves (and results on the way), such as a module's named parameters.
    Inputs that want no gradient are not on the tape, and so not in the drawing. Raises ValueError for a Tensor without
    history.

    >>> print(draw_graph(ops.tanh(x * w), names={"w": w}))
    digraph tape {
      rankdir=LR; node [shape=box, style="rounded,filled", fontname="sans-serif"];
      n1 [label="w\\n(3,)", fillcolor="#e3f1df"];
      ...
    """
    boxes = _boxes(tensor, names or {})
    lines = ["digraph tape {", '  rankdir=LR; node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    number = {node: f"n{i}" for i, node in enumerate(boxes, 1)}
    for node, box in boxes.items():
        label = "\\n".join(text.replace("\\", "\\\\").replace('"', '\\"') for text in (box.title, box.detail))
        lines.append(f'  {number[node]} [label="{label}", fillcolor="{box.colour}"];')
    for node, box in boxes.items():
        lines += [f"  {number[parent]} -> {number[node]};" for parent in box.parents]
    return "\n".join([*lines, "}"])


def draw_svg(tensor: Tensor, path: str | Path | None = None, names: Names | None = None) -> str:
    """The same as a picture: SVG text, also written to `path` if one is given. Hovering over an op shows its parameters.

    >>> draw_svg(model.loss(x), "loss.svg", names=dict(model.named_parameters()))
    """
    boxes = _boxes(tensor, names or {})
    _layout(boxes)
    width = max(box.x + box.width for box in boxes.values()) + PAD
    height = max(box.y for box in boxes.values()) + LINE / 2 + PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#8a94a6"/></marker></defs>',
    ]
    parts += [_curve([boxes[parent], *bends, box]) for box in boxes.values() for parent, bends in box.routes]
    parts += [_drawn(box) for box in boxes.values()]
    text = "\n".join([*parts, "</svg>\n"])
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


# ---- what is drawn


@dataclass(eq=False)
class _Box:
    """A node of the drawing, or (without title) a bend of an edge. y is the middle, x the left edge."""

    title: str = ""
    detail: str = ""
    tip: str = ""
    colour: str = ""
    parents: list[Node] = field(default_factory=list)
    layer: int = 0
    before: list[_Box] = field(default_factory=list)  # neighbours in the layers on the left and on the right
    after: list[_Box] = field(default_factory=list)
    routes: list[tuple[Node, list[_Box]]] = field(default_factory=list)  # for each parent, the bends on the way
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0


def _boxes(tensor: Tensor, names: Names) -> dict[Node, _Box]:
    """A box for every node behind the tensor, oldest first."""
    if tensor.node is None:
        raise ValueError("nothing to draw: the Tensor has no history (no input requires a gradient, or no_grad was on)")
    label = {t.node: name for name, t in names.items() if t.node is not None}
    last = _skip_select(tensor.node)
    nodes, seen = [last], {last}
    for node in nodes:  # grows while it is read
        for parent in node.parents:
            parent = None if parent is None else _skip_select(parent)
            if parent is not None and parent not in seen:
                seen.add(parent)
                nodes.append(parent)
    boxes = {}
    for node in sorted(nodes, key=lambda node: node.number):
        shape = "  ".join(map(str, node.shape)) if isinstance(node.dtype, tuple) else str(node.shape)
        kind = "leaf" if node.op is None else node.op.name
        title = f"{label[node]}" if node.op is None and node in label else kind
        title = f"{label[node]} = {kind}" if node.op is not None and node in label else title
        dtype = ", ".join(map(str, node.dtype)) if isinstance(node.dtype, tuple) else str(node.dtype)
        params = "".join(f"\n{name} = {value!r}"[:120] for name, value in node.params.items())
        boxes[node] = _Box(
            title=title,
            detail=shape,
            tip=f"{kind} -> {dtype}{shape}{params}",
            colour=LEAF if node.op is None else RESULT if node is last else OP,
            parents=list(dict.fromkeys(_skip_select(p) for p in node.parents if p is not None)),
            width=CHARACTER * max(len(title), len(shape)) + 14,
        )
    return boxes


def _skip_select(node: Node) -> Node:
    """The op itself, for the node that stands for one of its several results."""
    return node.parents[0] if node.op is SELECT else node


# ---- where it is drawn


def _layout(boxes: dict[Node, _Box]) -> None:
    """Set x, y and the bends of every box."""
    for box in boxes.values():  # oldest first, so parents have their layer already
        box.layer = 1 + max((boxes[p].layer for p in box.parents), default=-1)
    for node in reversed(boxes):  # a leaf stands just before its first use, not at the far left
        uses = [b.layer for b in boxes.values() if node in b.parents]
        if not boxes[node].parents and uses:
            boxes[node].layer = min(uses) - 1
    layers: list[list[_Box]] = [[] for _ in range(1 + max(b.layer for b in boxes.values()))]
    for box in boxes.values():
        layers[box.layer].append(box)
    for box in boxes.values():
        for parent in box.parents:
            bends = [_Box(layer=i) for i in range(boxes[parent].layer + 1, box.layer)]
            for bend in bends:
                layers[bend.layer].append(bend)
            path = [boxes[parent], *bends, box]
            for left, right in pairwise(path):
                left.after.append(right)
                right.before.append(left)
            box.routes.append((parent, bends))
    x = float(PAD)
    for layer in layers:
        widest = max(b.width for b in layer)
        for i, box in enumerate(layer):
            box.x, box.y = x + (widest - box.width) / 2, float(i)
        x += widest + GAP_X
    for sweep in range(24):
        forwards = sweep % 2 == 0
        for layer in layers if forwards else layers[::-1]:
            for box in layer:
                box.y = _middle(box.before if forwards else box.after, box.y)
            layer.sort(key=lambda box: box.y)
            for i, box in enumerate(layer):
                box.y = float(i)
    for sweep in range(40):  # heights in pixels: to the mean of the neighbours, without touching
        for layer in layers if sweep % 2 else layers[::-1]:
            wanted = [_middle(box.before + box.after, box.y) if sweep else box.y * LINE for box in layer]
            _spread(layer, wanted)
    top = min(b.y for layer in layers for b in layer)
    for layer in layers:
        for box in layer:
            box.y += PAD + LINE / 2 - top


def _middle(neighbours: list[_Box], otherwise: float) -> float:
    return sum(b.y for b in neighbours) / len(neighbours) if neighbours else otherwise


def _spread(layer: list[_Box], wanted: list[float]) -> None:
    """Give the boxes of a layer the heights nearest to those wanted that keep their order and their distance.

    Boxes that want to overlap form a block, which is centred on the mean of what its members want (isotonic regression).
    """
    offsets = [0.0]
    for upper, lower in pairwise(layer):
        heights = [LINE if b.title else LINE / 3 for b in (upper, lower)]
        offsets.append(offsets[-1] + sum(heights) / 2 + GAP_Y)
    blocks: list[tuple[float, int]] = []  # (mean of what is wanted less the offset, number of boxes)
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, n = blocks.pop()
            mean, count = (mean * count + before * n) / (count + n), count + n
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    for box, mean, offset in zip(layer, means, offsets, strict=True):
        box.y = mean + offset


# ---- how it is drawn


def _curve(path: list[_Box]) -> str:
    """A smooth line from the right edge of the first box, through the bends, to the left edge of the last."""
    first, *bends, last = path
    points = [(first.x + first.width, first.y), *((b.x, b.y) for b in bends), (last.x, last.y)]
    d = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (x1 - x0) / 2
        d += f" C{x0 + half:.1f},{y0:.1f} {x1 - half:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    return f'<path d="{d}" fill="none" stroke="#8a94a6" stroke-width="1.2" marker-end="url(#tip)"/>'


def _drawn(box: _Box) -> str:
    middle = box.x + box.width / 2
    return (
        f"<g><title>{escape(box.tip)}</title>"
        f'<rect x="{box.x:.1f}" y="{box.y - LINE / 2:.1f}" width="{box.width:.1f}" height="{LINE}" rx="6" '
        f'fill="{box.colour}" stroke="#8a94a6"/>'
        f'<text x="{middle:.1f}" y="{box.y - 3:.1f}" text-anchor="middle" font-weight="600">{escape(box.title)}</text>'
        f'<text x="{middle:.1f}" y="{box.y + 11:.1f}" text-anchor="middle" fill="#5a6475">{escape(box.detail)}</text></g>'
    )
