"""A matrix product whose threads copy what they read into memory of their own (`MatmulPanels`).

Work items are (batch dims, group of row tiles, group of column chunks). For each part of the sum a thread copies the rows of its group,
then, chunk by chunk of columns, b, and adds the products of all tiles of rows with the chunk: to zero in the first part, to what the part
before left in the others; the last part ends in the epilogue. Each element is one sum over k in order, as without panels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from graphc.kernel.spec import MatmulPanels
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, vector_type
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, operand_pointers, pieces, start_of, width_of
from graphc_cpu.kernels.matmul import Matmul, MatmulPlan, matmul_plan
from graphc_cpu.micro.epilogue import check_epilogue
from graphc_cpu.micro.memory import load_lanes, load_transposed, store_lanes
from graphc_cpu.micro.outer import OuterTile, Pixels
from graphc_cpu.micro.shape import Split, tile_cost
from graphc_cpu.micro.tile import prefetch

_COPY_A, _COPY_B = 1.5, 0.6  # multiply-adds of vectors that take as long as copying an element
_ITEM = 100.0
_COPIED_STEPS = 4
_LINE = 64


@dataclass(frozen=True)
class PanelPlan:
    """Tiles of the product, in groups."""

    product: MatmulPlan
    rows: Split
    columns: Split


@lru_cache(maxsize=1024)
def panel_plan(spec: MatmulPanels, target: Target) -> PanelPlan:
    """Groups that fit into the panels, of least predicted time."""
    plan = matmul_plan(spec.product, target, "ab" if spec.copies_a else "b")
    rows, columns = min(_groups(spec, plan, target), key=lambda groups: _cost(spec, plan, target, *groups))
    return PanelPlan(plan, rows, columns)


def _groups(spec: MatmulPanels, plan: MatmulPlan, target: Target) -> Iterator[tuple[Split, Split]]:
    tiles, chunks = plan.rows.parts, plan.columns.parts
    rows = -(-tiles // (spec.rows // plan.rows.width))
    columns = -(-chunks // (spec.columns // (plan.columns.width * plan.lanes)))
    for some_rows in range(rows, min(tiles, rows + 2 * target.cores) + 1):
        for some_columns in range(columns, min(chunks, columns + 2 * target.cores) + 1):
            yield Split(tiles, some_rows), Split(chunks, some_columns)


def _cost(spec: MatmulPanels, plan: MatmulPlan, target: Target, rows: Split, columns: Split) -> float:
    """Relative time of the busiest thread."""
    k = spec.product.k
    tiles = rows.width * columns.width * tile_cost(plan.rows.width, plan.columns.width, k)
    copies = _COPY_A * k * rows.width * plan.rows.width if spec.copies_a else 0.0
    copies += _COPY_B * k * columns.width * plan.columns.width * plan.lanes
    return -(-prod(plan.batch) * rows.parts * columns.parts // target.cores) * (tiles + copies + _ITEM)


def emit_matmul_panels(spec: MatmulPanels, target: Target, name: str) -> Function:
    """Raises UnsupportedError, with the reason, for a spec that cannot be generated."""
    check_epilogue(spec.product.epilogue, spec.product.operands)
    return _Panels(spec, panel_plan(spec, target), target, name).emit()


class _Panels(Matmul):
    def __init__(self, panels: MatmulPanels, groups: PanelPlan, target: Target, name: str) -> None:
        super().__init__(panels.product, groups.product, target, name)
        self.panels, self.groups = panels, groups
        self.lanes, self.vector = self.plan.lanes, vector_type(self.element, self.plan.lanes)
        self.row_kinds = pieces(self.plan.rows)
        self.column_kinds = pieces(self.plan.columns, self.lanes, self.spec.n % self.lanes or self.lanes)

    def emit(self) -> Function:
        f, plan, groups = self.f, self.plan, self.groups
        *self.pointers, scratch = operand_pointers(f, len(self.panels.operands))
        a, b, _ = self.panels.regions
        self.of_a = f.pointer(scratch, f.mul(f.parameters[1], self.panels.scratch.elements), self.element)
        self.of_b = f.pointer(self.of_a, a, self.element)
        self.of_sums = f.pointer(self.of_b, b, self.element)
        batch = {f"batch{d}": size for d, size in enumerate(plan.batch)}
        for_items(f, {**batch, "rows": groups.rows.parts, "columns": groups.columns.parts}, lambda digits:
            self._group([digits[name] for name in batch], digits["rows"], digits["columns"]))  # fmt: skip
        return f

    def _group(self, batch: list[Value], rows: Value, columns: Value) -> None:
        """The elements of one item."""
        f, groups, panels = self.f, self.groups, self.panels
        row, column = start_of(f, rows, groups.rows), start_of(f, columns, groups.columns)
        group = _Group(batch, row, f.add(row, width_of(f, rows, groups.rows)), column, f.add(column, width_of(f, columns, groups.columns)))
        if panels.parts == 1:
            self._part(group, _Part(i64(0), panels.product.k))
            return

        def turn(first: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            left = f.sub(i64(panels.product.k), first)
            short = f.op(f"icmp slt i64 {left.name}, {panels.steps}", "i1")
            count = f.op(f"select i1 {short.name}, i64 {left.name}, i64 {panels.steps}", "i64")
            self._part(group, _Part(first, count))
            return ()

        f.loop(0, panels.product.k, panels.steps, turn, hint="part", guarded=False)

    def _part(self, group: _Group, part: _Part) -> None:
        """The products of a part of the sum."""
        if self.panels.copies_a:
            self._copy_rows(group, part)

        def chunk(number: Value) -> None:
            self._copy_columns(group, part, number)
            for_kinds(self.f, number, self.column_kinds, lambda columns: self._chunk(group, part, number, columns))

        self._each(group.first_column, group.last_column, chunk)

    def _chunk(self, group: _Group, part: _Part, number: Value, columns: Piece) -> None:
        """All rows of the group with one chunk of columns."""
        def tile(row: Value) -> None:
            for_kinds(self.f, row, self.row_kinds, lambda rows: self._tile_of(group, part, row, number, rows, columns))

        self._each(group.first_row, group.last_row, tile)

    def _each(self, first: Value, last: Value, body: Callable[[Value], None]) -> None:
        def turn(number: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            body(number)
            return ()

        self.f.loop(first, last, 1, turn, guarded=False)

    # tiles ----------------------------------------------------------------------------------------------------------------------

    def _tile_of(self, group: _Group, part: _Part, row: Value, chunk: Value, rows: Piece, columns: Piece) -> None:
        f, spec, plan, lanes = self.f, self.spec, self.plan, self.lanes
        at_row, at_column = start_of(f, row, plan.rows), f.mul(start_of(f, chunk, plan.columns), lanes)
        if self.panels.copies_a:
            x, row_step, step = self._rows_at(group, row), 1, rows.width
        else:
            row_step, step = spec.a_strides[-2:]
            x = f.pointer(self.pointer(0, [*group.batch, at_row], spec.a_strides[:-1]), part.first, self.element)
        places, blocks = [r * row_step for r in range(rows.width)], [b * lanes for b in range(columns.width)]
        outer = OuterTile(f, spec.dtype, lanes, places, blocks, [Pixels(part.count, step, columns.width * lanes)])
        if self.panels.parts > 1:
            outer.meanwhile = self._fetching(group, part, row, chunk, -(-self.panels.steps // outer.pixels_of_turn))
        sums = self._sums_at(group, row, chunk)
        acc = list(outer.sums(x, self.of_b, self._begin(part, sums, rows.width * columns.width)))

        def end() -> None:
            epilogue = self.epilogue(group.batch, at_row, at_column, rows.width, columns.width)
            for i, value in enumerate(acc):
                r, b = divmod(i, columns.width)
                epilogue.store(value, r, b, columns.valid if b == columns.width - 1 else lanes)

        if self.panels.parts == 1:
            end()
            return
        after = f.add(part.first, self.panels.steps)
        more = f.op(f"icmp slt i64 {after.name}, {spec.k}", "i1")
        done = f.op(f"xor i1 {more.name}, true", "i1")
        f.branch(more, lambda: self._keep(acc, sums), hint="keep")
        f.branch(done, end, hint="end")

    # what comes next -------------------------------------------------------------------------------------------------------------

    def _fetching(self, group: _Group, part: _Part, row: Value, chunk: Value, turns: int) -> Callable[[Value], None]:
        """What each of the turns of a tile's loop has to do: to fetch some of the lines that are copied next, the columns of the next chunk
        and the rows of the next part, so that copying waits less for the third-level cache (measured: 3 % of a product)."""
        streams = list(self._next_columns(group, part, row, chunk, turns))
        if self.panels.copies_a:
            streams.append(self._next_rows(group, part, row, chunk, turns))

        def turn(number: Value) -> None:
            for stream in streams:
                stream.fetch(self.f, number, self.element)

        return turn

    def _next_columns(self, group: _Group, part: _Part, row: Value, chunk: Value, turns: int) -> Iterator[_Stream]:
        """Of b: each tile of rows fetches its share. Lines of one step, or, where b is turned, of one column, lie together."""
        f, spec, plan, steps = self.f, self.spec, self.plan, self.panels.steps
        step, lane = spec.b_strides[-2:]
        following = f.add(chunk, 1)
        last = f.op(f"icmp sge i64 {following.name}, {group.last_column.name}", "i1")
        number = f.op(f"select i1 {last.name}, {group.first_column}, {following}", "i64")
        first = f.op(f"select i1 {last.name}, {self._following(part)}, {part.first}", "i64")
        begin = self.pointer(1, [*group.batch, f.mul(start_of(f, number, plan.columns), self.lanes)], (*spec.b_strides[:-2], lane))
        begin = f.pointer(begin, f.mul(first, step), self.element)
        width = plan.columns.width * self.lanes
        count, pitch, together = (width, lane, steps) if step == 1 != lane else (steps, step, width)
        each = -(-count // (turns * self.groups.rows.width))
        start = f.mul(f.sub(row, group.first_row), turns * each)
        for offset in range(0, together, _LINE // spec.dtype.itemsize):
            yield _Stream(f.pointer(begin, offset, self.element), i64(pitch), start, each, count)

    def _next_rows(self, group: _Group, part: _Part, row: Value, chunk: Value, turns: int) -> _Stream:
        """Of a: each chunk fetches its share of the steps of its tile. After the last part: again and again what is at hand."""
        f, spec = self.f, self.spec
        first = self._following(part)
        more = f.op(f"icmp sgt i64 {first.name}, {part.first.name}", "i1")
        begin = self.pointer(0, [*group.batch, start_of(f, row, self.plan.rows)], spec.a_strides[:-1])
        begin = f.pointer(begin, f.mul(first, spec.a_strides[-1]), self.element)
        begin = f.op(f"select i1 {more.name}, {begin}, {self.of_b}", "ptr")
        step = f.op(f"select i1 {more.name}, i64 {spec.a_strides[-1]}, i64 0", "i64")
        each = -(-self.panels.steps // (turns * self.groups.columns.width))
        return _Stream(begin, step, f.mul(f.sub(chunk, group.first_column), turns * each), each, self.panels.steps)

    def _following(self, part: _Part) -> Value:
        """Where the next part begins; after the last one, where this one does."""
        after = self.f.add(part.first, self.panels.steps)
        more = self.f.op(f"icmp slt i64 {after.name}, {self.spec.k}", "i1")
        return self.f.op(f"select i1 {more.name}, {after}, {part.first}", "i64")

    def _begin(self, part: _Part, sums: Value, count: int) -> list[Value]:
        """What the accumulators start from: zero in the first part."""
        f, zero = self.f, Value("zeroinitializer" if self.lanes > 1 else ("0.0" if self.spec.dtype.is_float else "0"), self.vector)
        if self.panels.parts == 1:
            return [zero] * count
        first = f.op(f"icmp eq i64 {part.first.name}, 0", "i1")
        kept = [self._load(f.pointer(sums, i * self.lanes, self.element), self.lanes) for i in range(count)]
        return [f.op(f"select i1 {first.name}, {zero}, {value}", self.vector) for value in kept]

    def _keep(self, acc: Sequence[Value], sums: Value) -> None:
        for i, value in enumerate(acc):
            self._store(value, self.f.pointer(sums, i * self.lanes, self.element))

    def _sums_at(self, group: _Group, row: Value, chunk: Value) -> Value:
        """[tile of rows][chunk of columns][row][vector][lane]"""
        f, plan = self.f, self.plan
        number = f.add(f.mul(f.sub(row, group.first_row), self.groups.columns.width), f.sub(chunk, group.first_column))
        return f.pointer(self.of_sums, f.mul(number, plan.rows.width * plan.columns.width * self.lanes), self.element)

    # panels ---------------------------------------------------------------------------------------------------------------------

    def _rows_at(self, group: _Group, row: Value) -> Value:
        """[tile of rows][step][row]; the last vector stored hangs over."""
        size = self.panels.steps * self.plan.rows.width + self.lanes
        return self.f.pointer(self.of_a, self.f.mul(self.f.sub(row, group.first_row), size), self.element)

    def _copy_rows(self, group: _Group, part: _Part) -> None:
        """Steps outside, so that what lies together is read together."""
        f, spec, lanes = self.f, self.spec, self.lanes
        begin = self.pointer(0, [*group.batch, i64(0)], spec.a_strides[:-1])
        begin = f.pointer(begin, f.mul(part.first, spec.a_strides[-1]), self.element)

        def copy(step: Value, row: Value, width: int, count: int) -> None:
            source = f.pointer(begin, f.add(f.mul(step, spec.a_strides[-1]), start_of(f, row, self.plan.rows)), self.element)
            target = f.pointer(self._rows_at(group, row), f.mul(step, width), self.element)
            starts = [(i, start) for i in range(count) for start in range(0, width, lanes)]
            places = [f.pointer(source, i * spec.a_strides[-1] + start, self.element) for i, start in starts]
            values = [self._load(place, min(lanes, width - start)) for place, (_, start) in zip(places, starts, strict=True)]
            for (i, start), value in zip(starts, values, strict=True):
                self._store(value, f.pointer(target, i * width + start, self.element))

        def rows(step: Value, count: int) -> None:
            self._each(group.first_row, group.last_row, lambda row:
                for_kinds(f, row, self.row_kinds, lambda kind: copy(step, row, kind.width, count)))  # fmt: skip

        self._in_blocks(part, _COPIED_STEPS, rows)

    def _copy_columns(self, group: _Group, part: _Part, chunk: Value) -> None:
        """[step][vector][lane], zeros in the lanes beyond the last column. Vectors outside: code for one of each kind."""
        f, spec, plan = self.f, self.spec, self.plan
        width, first = width_of(f, chunk, plan.columns), start_of(f, chunk, plan.columns)
        pitch = f.mul(width, self.lanes)
        tail = spec.n % self.lanes or self.lanes
        kinds = pieces(Split(plan.columns.total, plan.columns.total), self.lanes, tail)

        def block(number: Value) -> None:
            vector = f.add(first, number)
            begin = self.pointer(1, [*group.batch, f.mul(vector, self.lanes)], (*spec.b_strides[:-2], spec.b_strides[-1]))
            begin = f.pointer(begin, f.mul(part.first, spec.b_strides[-2]), self.element)
            target = f.pointer(self.of_b, f.mul(number, self.lanes), self.element)
            for_kinds(f, vector, kinds, lambda kind: self._copy_vector(begin, target, pitch, part, kind.valid))

        self._each(i64(0), width, block)

    def _copy_vector(self, begin: Value, target: Value, pitch: Value, part: _Part, valid: int) -> None:
        """One vector of columns, where its steps are contiguous a square at a time, transposed in registers; the other steps one by one."""
        f, dtype, lanes, (step_of_b, lane_step) = self.f, self.spec.dtype, self.lanes, self.spec.b_strides[-2:]
        turned = step_of_b == 1 != lane_step

        def steps(step: Value, count: int) -> None:
            source = f.pointer(begin, f.mul(step, step_of_b), self.element)
            if turned and count == lanes:
                vectors = load_transposed(f, source, dtype, lanes, lane_step, valid)
            else:
                places = [f.pointer(source, i * step_of_b, self.element) for i in range(count)]
                vectors = [load_lanes(f, place, dtype, lanes, lane_step, valid) for place in places]
            for i, vector in enumerate(vectors):
                self._store(vector, f.pointer(target, f.op(f"mul i64 {f.add(step, i).name}, {pitch.name}", "i64"), self.element))

        self._in_blocks(part, lanes if turned else _COPIED_STEPS, steps)

    def _in_blocks(self, part: _Part, size: int, body: Callable[[Value, int], None]) -> None:
        """`body(step, count)` of `size` steps at a time, a power of two, and of single ones at the end."""
        f = self.f
        whole = f.op(f"and i64 {part.steps.name}, {-size}", "i64")
        for first, last, count in ((i64(0), whole, size), (whole, part.steps, 1)):

            def turn(step: Value, _: tuple[Value, ...], count: int = count) -> Sequence[Value]:
                body(step, count)
                return ()

            f.loop(first, last, count, turn, hint="step")

    def _load(self, pointer: Value, valid: int) -> Value:
        return load_lanes(self.f, pointer, self.spec.dtype, self.lanes, 1, valid)

    def _store(self, value: Value, pointer: Value) -> None:
        store_lanes(self.f, value, pointer, self.spec.dtype, self.lanes, 1, self.lanes)


@dataclass(frozen=True)
class _Group:
    """Tiles of rows and chunks of columns: the first, and the one behind the last."""

    batch: list[Value]
    first_row: Value
    last_row: Value
    first_column: Value
    last_column: Value


@dataclass(frozen=True)
class _Stream:
    """`count` lines, `step` elements from one to the next; each turn of a loop fetches `each`, from line `start` on."""

    begin: Value
    step: Value
    start: Value
    each: int
    count: int

    def fetch(self, f: Function, turn: Value, element: str) -> None:
        first = f.add(self.start, f.mul(turn, self.each))
        for k in range(self.each):
            line = f.add(first, k)
            beyond = f.op(f"icmp sgt i64 {line.name}, {self.count - 1}", "i1")
            line = f.op(f"select i1 {beyond.name}, i64 {self.count - 1}, {line}", "i64")
            prefetch(f, f.pointer(self.begin, f.op(f"mul i64 {line.name}, {self.step.name}", "i64"), element), 2)


@dataclass(frozen=True)
class _Part:
    """Terms of the sum: the first, and how many."""

    first: Value
    count: int | Value

    @property
    def steps(self) -> Value:
        return i64(self.count) if isinstance(self.count, int) else self.count
