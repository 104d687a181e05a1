"""Gives the values of a tiny model names that no text form of ONNX can spell."""

from __future__ import annotations

import sys

import onnx

NAMES = {"x": "the input", "a": "a/b:0", "b": "%b", "c": "層 é", "y": 'y"quoted"'}
LABELS = {"n1": "a node/%1"}


def main(source: str, target: str) -> None:
    model = onnx.load(source)
    graph = model.graph
    for info in (*graph.input, *graph.output):
        info.name = NAMES[info.name]
    for node in graph.node:
        node.name = LABELS.get(node.name, node.name)
        node.input[:] = [NAMES[name] for name in node.input]
        node.output[:] = [NAMES[name] for name in node.output]
    onnx.save(model, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
