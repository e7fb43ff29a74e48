"""The kernels of a plan: specs to LLVM IR to object code, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphc.errors import GraphcError, UnsupportedError
from graphc.kernel.canonical import spec_text
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec
from graphc.kernel.sort import SortSpec
from graphc.kernel.spec import (
    ChainBands,
    ConvChain,
    ConvSpec,
    KernelSpec,
    MatmulPanels,
    MatmulSpec,
    NestSpec,
    PackSpec,
    UpdateSpec,
    WeightGradientSpec,
)
from graphc.schedule.plan import Plan
from graphc.target import Target
from graphc_cpu import cache
from graphc_cpu.emit.ir import Function, module
from graphc_cpu.kernels.chain import emit_chain
from graphc_cpu.kernels.conv import emit_conv
from graphc_cpu.kernels.matmul import emit_matmul
from graphc_cpu.kernels.matmul_panels import emit_matmul_panels
from graphc_cpu.kernels.nest import emit_nest
from graphc_cpu.kernels.pack_at_run_time import pack_nests
from graphc_cpu.kernels.recurrent import emit_recurrent
from graphc_cpu.kernels.recurrent_grad import emit_recurrent_grad
from graphc_cpu.kernels.sort import emit_sort
from graphc_cpu.kernels.update import emit_update
from graphc_cpu.kernels.weight_gradient import emit_weight_gradient
from graphc_cpu.kernels.winograd import emit_winograd


def compile_kernels(plan: Plan) -> dict[str, bytes]:
    """Object code of the kernels by spec text, from the cache or compiled now."""
    return compile_specs(plan.specs, plan.target)


def compile_specs(specs: Iterable[KernelSpec], target: Target) -> dict[str, bytes]:
    """Object code by spec text; the symbol of a kernel is `cache.symbol` of that text."""
    texts = {spec_text(spec): spec for spec in specs}
    modules = [(text, _emitter(spec, target, cache.symbol(text))) for text, spec in texts.items()]
    return cache.compile_objects(modules, target)


def emit_kernel(spec: KernelSpec, target: Target, name: str) -> Function:
    """LLVM IR of one kernel."""
    if isinstance(spec, ConvSpec):
        return emit_conv(spec, target, name)
    if isinstance(spec, MatmulSpec):
        return emit_matmul(spec, target, name)
    if isinstance(spec, MatmulPanels):
        return emit_matmul_panels(spec, target, name)
    if isinstance(spec, NestSpec):
        return emit_nest(spec, target, name)
    if isinstance(spec, UpdateSpec):
        return emit_update(spec, target, name)
    if isinstance(spec, RecurrentSpec):
        return emit_recurrent(spec, target, name)
    if isinstance(spec, RecurrentGradSpec):
        return emit_recurrent_grad(spec, target, name)
    if isinstance(spec, SortSpec):
        return emit_sort(spec, target, name)
    if isinstance(spec, PackSpec):
        return emit_nest(pack_nests(spec, target), target, name)
    if isinstance(spec, WeightGradientSpec):
        return emit_weight_gradient(spec, target, name)
    if isinstance(spec, ChainBands):
        return emit_chain(spec, target, name)
    if isinstance(spec, ConvChain):
        raise UnsupportedError("a chain of convolutions without bands", hint="graphc.kernel.choose_chain.banded")
    return emit_winograd(spec, target, name)


def _emitter(spec: KernelSpec, target: Target, name: str) -> Callable[[], str]:
    def emit() -> str:
        try:
            return module(target.triple, [emit_kernel(spec, target, name)])
        except GraphcError:
            raise
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"emitting {spec_text(spec)[:500]}")
            raise

    return emit
