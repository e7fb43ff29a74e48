"""Functions: operators that are defined by a graph, in the model (`model.functions`) or in their ONNX schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import onnx

from graphc.errors import ModelError, UnsupportedError
from graphc.ir.graph import Value
from graphc_onnx.read import is_standard, subgraphs
from graphc_onnx.registry import Item, TensorList
from graphc_onnx.tensors import ELEM_TYPES

Key = tuple[str, str, str]  # domain, name, overload
Table = dict[Key, onnx.FunctionProto]


def table(model: onnx.ModelProto) -> Table:
    """The model's own functions."""
    found: Table = {}
    for function in model.functions:
        key = ("" if is_standard(function.domain) else function.domain, function.name, function.overload)
        if key in found:
            raise ModelError(f"the function {function.name!r} is defined twice", hint="export the model again")
        found[key] = function
    return found


def check_not_recursive(functions: Table) -> None:
    """A ModelError for a function that calls itself, directly or through others."""
    calls = {key: set(_called(function.node, functions)) for key, function in functions.items()}
    while calls:
        leaves = [key for key, called in calls.items() if not called & calls.keys()]
        if not leaves:
            name = min(key[1] for key in calls)
            raise ModelError(f"the function {name!r} calls itself", hint="a function must not be recursive")
        for key in leaves:
            del calls[key]


def reachable(model: onnx.ModelProto, functions: Table) -> list[onnx.FunctionProto]:
    """The functions that the main graph calls, directly or through others."""
    found: dict[Key, None] = {}
    stack = list(_called(model.graph.node, functions))
    while stack:
        key = stack.pop()
        if key not in found:
            found[key] = None
            stack.extend(_called(functions[key].node, functions))
    return [functions[key] for key in found]


def _called(nodes: Iterable[onnx.NodeProto], functions: Table) -> Iterator[Key]:
    for node in nodes:
        key = ("" if is_standard(node.domain) else node.domain, node.op_type, node.overload)
        if key in functions:
            yield key
        for graph in subgraphs(node):
            yield from _called(graph.node, functions)


def all_value_names(graph: onnx.GraphProto) -> frozenset[str]:
    """Names that the model's main graph uses for values."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return frozenset(names.union(*(node.output for node in graph.node)))


@cache
def _schema(op: str, domain: str, opset: int) -> Any:
    """The OpSchema (a C++ class without type stubs), or None."""
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None


def has_body(op: str, domain: str, opset: int) -> bool:
    """Whether the ONNX schema defines the operator by a function body."""
    schema = _schema(op, domain, opset)
    return schema is not None and not schema.deprecated and (schema.has_function or schema.has_context_dependent_function)


def schema_body(node: onnx.NodeProto, domain: str, opset: int, inputs: Sequence[Item]) -> onnx.FunctionProto:
    """The function body of a standard operator, for the types of these inputs."""
    schema = _schema(node.op_type, domain, opset)
    data = b""
    if schema is not None and schema.has_function:
        version = max((v for v in schema.function_opset_versions if v <= opset), default=0)
        data = schema.get_function_with_opset_version(version) if version else schema.function_body.SerializeToString()
    elif schema is not None and schema.has_context_dependent_function:
        version = max((v for v in schema.context_dependent_function_opset_versions if v <= opset), default=0)
        types = [_type_proto(item).SerializeToString() for item in inputs]
        if version:
            data = schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), types)
    if not data:
        raise UnsupportedError(f"{node.op_type} has no definition for these inputs and attributes", hint="see `graphc ops`")
    body: onnx.FunctionProto = onnx.FunctionProto.FromString(data)
    return body


def _type_proto(item: Item) -> onnx.TypeProto:
    if isinstance(item, TensorList):
        return onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(ELEM_TYPES[item.dtype.name], None))
    if not isinstance(item, Value):
        return onnx.TypeProto()
    shape = [dim if isinstance(dim, int) else str(dim) for dim in item.type.shape]
    return onnx.helper.make_tensor_type_proto(ELEM_TYPES[item.type.dtype.name], shape)


def specialise(body: onnx.FunctionProto, call: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The body's nodes with references to the function's attributes replaced by what the call gives (or the defaults)."""
    given = {attribute.name: attribute for attribute in body.attribute_proto}
    given |= {attribute.name: attribute for attribute in call.attribute}
    schema = _schema(call.op_type, "" if is_standard(call.domain) else call.domain, 1 << 20)
    for name, attribute in (schema.attributes if schema is not None else {}).items():
        if name not in given and attribute.default_value.type:
            given[name] = attribute.default_value
    return [_bind(node, given) for node in body.node]


def _bind(node: onnx.NodeProto, given: dict[str, onnx.AttributeProto]) -> onnx.NodeProto:
    if not any(attribute.ref_attr_name for attribute in node.attribute) and not any(True for _ in subgraphs(node)):
        return node
    bound = onnx.NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in given:
                copy = bound.attribute.add()
                copy.CopyFrom(given[attribute.ref_attr_name])
                copy.name = attribute.name
                copy.ClearField("ref_attr_name")
            continue
        bound.attribute.add().CopyFrom(attribute)
    for attribute in bound.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
            nodes = [_bind(inner, given) for inner in graph.node]
            del graph.node[:]
            graph.node.extend(nodes)
    return bound
