"""The thread runtime as LLVM IR: workers, barrier, sleep and wake-up. No C compiler: libc is called by name.

Entry points (the state block is laid out in `state.py`):

* `i32 graphc_pool_start(ptr state)` creates the workers; returns 0 or the error number of pthread_create.
* `void graphc_pool_run(ptr state, ptr steps, i64 count)` runs a step table on all threads; the calling thread is thread 0.
* `void graphc_pool_stop(ptr state)` ends and joins the workers.
* `void graphc_pool_meet(ptr state)` is a barrier for kernels: every thread of the running step must call it, and equally often.
* `void graphc_serial(ptr steps, i64 count)` runs a step table as thread 0 of 1; needs no state.
* `void graphc_pool_alone(ptr args, i64 thread, i64 threads)` is a step, for one thread, that does the same with the table and the count
  that `args` points to: a loop too small to share.
* `i1 graphc_spin(ptr word, i32 old, i64 spins)` waits for `*word != old`, at most `spins` turns; exported to be timed.

Protocol. A run: the caller writes STEPS and COUNT, then EPOCH with release order; a worker that reads the new EPOCH with acquire order
sees them, and everything that the caller did before. A barrier: every thread adds itself to ARRIVED (acquire and release); the last one
resets ARRIVED and advances PHASE (release), which the others wait for (acquire). PHASE is read before arriving: it cannot advance before
this thread arrives. Workers do not wait at the barrier that ends a run, only the caller does; the next EPOCH follows that barrier, so the
words are at rest when workers read them again.

Sleep. A thread that is about to sleep first counts itself in SLEEPERS, then the kernel compares the word again; a thread that changes
the word does so first and then reads SLEEPERS; all of that sequentially consistent, so no wake-up is lost and none is sent in vain while
nobody sleeps.

Decisions (`state.Decision`). Thread 0 alone writes where all go on, between two barriers: the one behind the step before, so that what it
reads is written and nobody uses the pointers that it moves, and one of the decision's own, behind which the others read its word.

Every run works in the default floating-point environment (round to nearest, denormals kept), whatever the calling thread has set, and
restores that: results do not depend on it, nor on which thread computed what.
"""

from __future__ import annotations

import re

from graphc.errors import BackendError
from graphc.target import Target
from graphc_cpu.runtime import state as at

_FUTEX = {"x86_64": 202, "aarch64": 98}  # system call numbers of Linux
_WAIT, _WAKE = 128, 129  # FUTEX_WAIT and FUTEX_WAKE with FUTEX_PRIVATE_FLAG
_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": ("call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"),
}
_FLOATS = {
    "x86_64": """
define internal i64 @save_floats() nounwind {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %narrow = load i32, ptr %slot
  %value = zext i32 %narrow to i64
  ret i64 %value
}
define internal void @set_floats(i64 %value) nounwind {
  %slot = alloca i32
  %narrow = trunc i64 %value to i32
  store i32 %narrow, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
""",
    "aarch64": """
define internal i64 @save_floats() nounwind {
  %value = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %value
}
define internal void @set_floats(i64 %value) nounwind {
  call void @llvm.aarch64.set.fpcr(i64 %value)
  ret void
}
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
""",
}
_DEFAULT_FLOATS = {"x86_64": 0x1F80, "aarch64": 0}  # all exceptions masked, round to nearest, no flush to zero

_WAITING = """
define i1 @graphc_spin(ptr %word, i32 %old, i64 %spins) nounwind {
entry:
  br label %spin
spin:
  %left = phi i64 [ %spins, %entry ], [ %less, %pause ]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %old
  %spent = icmp sle i64 %left, 0
  %done = or i1 %changed, %spent
  br i1 %done, label %end, label %pause
pause:
  PAUSE
  %less = sub i64 %left, 1
  br label %spin
end:
  ret i1 %changed
}

define internal void @wait(ptr %word, i32 %old, ptr %sleepers, i64 %spins) nounwind {
entry:
  %changed = call i1 @graphc_spin(ptr %word, i32 %old, i64 %spins)
  br i1 %changed, label %done, label %sleepy
sleepy:
  atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %sleep
sleep:
  call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 WAIT, i32 %old, ptr null)
  %now = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %now, %old
  br i1 %same, label %sleep, label %awake
awake:
  atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  ret void
}

define internal void @advance(ptr %word, ptr %sleepers) nounwind {
entry:
  %old = load atomic i32, ptr %word monotonic, align 4
  %new = add i32 %old, 1
  store atomic i32 %new, ptr %word seq_cst, align 4
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp sgt i32 %asleep, 0
  br i1 %any, label %wake, label %done
wake:
  call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 WAKE, i32 2147483647)
  br label %done
done:
  ret void
}
declare i64 @syscall(i64, ...)
"""

_BARRIER = """
define internal void @barrier(ptr %state, i1 %wait) nounwind {
entry:
  %arrived.p = getelementptr i8, ptr %state, i64 ARRIVED
  %phase.p = getelementptr i8, ptr %state, i64 PHASE
  %sleepers.p = getelementptr i8, ptr %state, i64 PHASE_SLEEPERS
  %threads.p = getelementptr i8, ptr %state, i64 THREADS
  %threads = load i64, ptr %threads.p
  %all = trunc i64 %threads to i32
  %phase = load atomic i32, ptr %phase.p monotonic, align 4
  %before = atomicrmw add ptr %arrived.p, i32 1 acq_rel
  %present = add i32 %before, 1
  %last = icmp eq i32 %present, %all
  br i1 %last, label %open, label %early
open:
  store atomic i32 0, ptr %arrived.p monotonic, align 4
  call void @advance(ptr %phase.p, ptr %sleepers.p)
  ret void
early:
  br i1 %wait, label %hold, label %leave
hold:
  %spins.p = getelementptr i8, ptr %state, i64 BARRIER_SPIN
  %spins = load i64, ptr %spins.p
  call void @wait(ptr %phase.p, i32 %phase, ptr %sleepers.p, i64 %spins)
  ret void
leave:
  ret void
}
"""

_MEETING = """
define void @graphc_pool_meet(ptr %state) nounwind {
  call void @barrier(ptr %state, i1 true)
  ret void
}
"""

_STEP = """
%step = type { ptr, ptr, i64 }
"""

_DECIDE = """
define internal void @decide(ptr %record) nounwind {
entry:
  %decided.p = getelementptr i8, ptr %record, i64 DECIDED
  %ran.p = getelementptr i8, ptr %record, i64 RAN
  %repeats.p = getelementptr i8, ptr %record, i64 REPEATS
  %counter.pp = getelementptr i8, ptr %record, i64 COUNTER
  %trips.p = getelementptr i8, ptr %record, i64 TRIPS
  %length.pp = getelementptr i8, ptr %record, i64 LENGTH
  %condition.pp = getelementptr i8, ptr %record, i64 CONDITION
  %negated.p = getelementptr i8, ptr %record, i64 NEGATED
  %body.p = getelementptr i8, ptr %record, i64 BODY
  %behind.p = getelementptr i8, ptr %record, i64 BEHIND
  %limit.p = getelementptr i8, ptr %record, i64 LIMIT
  %status.pp = getelementptr i8, ptr %record, i64 STATUS
  %last.p = getelementptr i8, ptr %record, i64 LAST
  %moves.pp = getelementptr i8, ptr %record, i64 MOVES
  %moved.p = getelementptr i8, ptr %record, i64 MOVED
  %repeats = load i64, ptr %repeats.p
  %counter.p = load ptr, ptr %counter.pp
  %again = icmp ne i64 %repeats, 0
  %before = load i64, ptr %counter.p
  %one.more = add i64 %before, 1
  %n = select i1 %again, i64 %one.more, i64 0
  store i64 %n, ptr %counter.p
  store i64 %n, ptr %ran.p
  %trips = load i64, ptr %trips.p
  %within = icmp slt i64 %n, %trips
  %length.p = load ptr, ptr %length.pp
  %endless = icmp eq ptr %length.p, null
  br i1 %endless, label %counted, label %count
count:
  %length = load i64, ptr %length.p
  %short = icmp slt i64 %n, %length
  br label %counted
counted:
  %left = phi i1 [ true, %entry ], [ %short, %count ]
  %condition.p = load ptr, ptr %condition.pp
  %free = icmp eq ptr %condition.p, null
  br i1 %free, label %tested, label %test
test:
  %flag = load i8, ptr %condition.p
  %set = icmp ne i8 %flag, 0
  %negated = load i64, ptr %negated.p
  %turned = icmp ne i64 %negated, 0
  %holds = xor i1 %set, %turned
  br label %tested
tested:
  %true = phi i1 [ true, %counted ], [ %holds, %test ]
  %both = and i1 %within, %left
  %going = and i1 %both, %true
  %limit = load i64, ptr %limit.p
  %spent = icmp sge i64 %n, %limit
  %over = and i1 %going, %spent
  br i1 %over, label %broken, label %choose
broken:
  %status.p = load ptr, ptr %status.pp
  store i64 1, ptr %status.p
  %last = load i64, ptr %last.p
  store i64 %last, ptr %decided.p
  ret void
choose:
  %body = load i64, ptr %body.p
  %behind = load i64, ptr %behind.p
  %target = select i1 %going, i64 %body, i64 %behind
  store i64 %target, ptr %decided.p
  %moves = load ptr, ptr %moves.pp
  %moved = load i64, ptr %moved.p
  %back = sub i64 0, %before
  %times = select i1 %going, i64 1, i64 %back
  %any = icmp sgt i64 %moved, 0
  br i1 %any, label %move, label %end
move:
  %i = phi i64 [ 0, %choose ], [ %following, %move ]
  %pair = getelementptr [2 x i64], ptr %moves, i64 %i
  %bytes.p = getelementptr i8, ptr %pair, i64 8
  %pointer.p = load ptr, ptr %pair
  %bytes = load i64, ptr %bytes.p
  %pointer = load i64, ptr %pointer.p
  %distance = mul i64 %bytes, %times
  %new = add i64 %pointer, %distance
  store i64 %new, ptr %pointer.p
  %following = add i64 %i, 1
  %more = icmp slt i64 %following, %moved
  br i1 %more, label %move, label %end
end:
  ret void
}
"""

_STEPS = """
define internal void @steps(ptr %state, i64 %thread, ptr %steps, i64 %count) nounwind {
entry:
  %threads.p = getelementptr i8, ptr %state, i64 THREADS
  %threads = load i64, ptr %threads.p
  %first = icmp eq i64 %thread, 0
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %next, label %end
next:
  %i = phi i64 [ 0, %entry ], [ %following, %again ], [ %target, %decided ]
  %function.p = getelementptr %step, ptr %steps, i64 %i
  %args.p = getelementptr %step, ptr %steps, i64 %i, i32 1
  %flags.p = getelementptr %step, ptr %steps, i64 %i, i32 2
  %function = load ptr, ptr %function.p
  %args = load ptr, ptr %args.p
  %flags = load i64, ptr %flags.p
  %following = add i64 %i, 1
  %more = icmp slt i64 %following, %count
  %decision.bit = and i64 %flags, DECISION
  %decision = icmp ne i64 %decision.bit, 0
  br i1 %decision, label %deciding, label %calling
deciding:
  br i1 %first, label %decide, label %decided
decide:
  call void @decide(ptr %args)
  br label %decided
decided:
  call void @barrier(ptr %state, i1 true)
  %target.p = getelementptr i8, ptr %args, i64 DECIDED
  %target = load i64, ptr %target.p
  %goes.on = icmp slt i64 %target, %count
  br i1 %goes.on, label %next, label %end
calling:
  %solo.bit = and i64 %flags, THREAD_0
  %solo = icmp ne i64 %solo.bit, 0
  br i1 %solo, label %alone, label %shared
shared:
  call void %function(ptr %args, i64 %thread, i64 %threads)
  br label %ran
alone:
  br i1 %first, label %mine, label %ran
mine:
  call void %function(ptr %args, i64 0, i64 1)
  br label %ran
ran:
  %free.bit = and i64 %flags, NO_BARRIER
  %bound = icmp eq i64 %free.bit, 0
  %meet = and i1 %bound, %more
  br i1 %meet, label %meeting, label %again
meeting:
  call void @barrier(ptr %state, i1 true)
  br label %again
again:
  br i1 %more, label %next, label %end
end:
  call void @barrier(ptr %state, i1 %first)
  ret void
}
"""

_PLACING = """
define internal void @place(ptr %state) nounwind {
entry:
  %place.p = getelementptr i8, ptr %state, i64 PLACE
  %place = load i32, ptr %place.p
  %wanted = icmp ne i32 %place, 0
  br i1 %wanted, label %look, label %done
look:
  %cpu.p = getelementptr i8, ptr %state, i64 CALLER_CPU
  %then = load i32, ptr %cpu.p
  %cpu = call i32 @sched_getcpu()
  %stayed = icmp eq i32 %then, %cpu
  br i1 %stayed, label %done, label %moved
moved:
  %negative = icmp slt i32 %cpu, 0
  %high = icmp sge i32 %cpu, MASK_BITS
  %unknown = or i1 %negative, %high
  br i1 %unknown, label %done, label %known
known:
  store i32 %cpu, ptr %cpu.p
  %mask.p = getelementptr i8, ptr %state, i64 MASK
  %scratch.p = getelementptr i8, ptr %state, i64 SCRATCH
  call void @llvm.memcpy.inline.p0.p0.i64(ptr %scratch.p, ptr %mask.p, i64 MASK_BYTES, i1 false)
  %index = lshr i32 %cpu, 3
  %byte.p = getelementptr i8, ptr %scratch.p, i32 %index
  %byte = load i8, ptr %byte.p
  %shift = and i32 %cpu, 7
  %shift8 = trunc i32 %shift to i8
  %bit = shl i8 1, %shift8
  %others = xor i8 %bit, -1
  %without = and i8 %byte, %others
  store i8 %without, ptr %byte.p
  %started.p = getelementptr i8, ptr %state, i64 STARTED
  %started = load i64, ptr %started.p
  br label %next
next:
  %i = phi i64 [ 0, %known ], [ %following, %set ]
  %more = icmp slt i64 %i, %started
  br i1 %more, label %set, label %done
set:
  %offset = mul i64 %i, WORKER_BYTES
  %records = getelementptr i8, ptr %state, i64 WORKERS
  %record = getelementptr i8, ptr %records, i64 %offset
  %handle.p = getelementptr i8, ptr %record, i64 WORKER_HANDLE
  %handle = load i64, ptr %handle.p
  call i32 @pthread_setaffinity_np(i64 %handle, i64 MASK_BYTES, ptr %scratch.p)
  %following = add i64 %i, 1
  br label %next
done:
  ret void
}
declare i32 @sched_getcpu()
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare void @llvm.memcpy.inline.p0.p0.i64(ptr, ptr, i64 immarg, i1 immarg)
"""

_RUN = """
define void @graphc_pool_run(ptr %state, ptr %steps, i64 %count) nounwind {
  %floats = call i64 @save_floats()
  call void @set_floats(i64 DEFAULT_FLOATS)
  call void @place(ptr %state)
  %steps.p = getelementptr i8, ptr %state, i64 STEPS
  %count.p = getelementptr i8, ptr %state, i64 COUNT
  store ptr %steps, ptr %steps.p
  store i64 %count, ptr %count.p
  %sleepers.p = getelementptr i8, ptr %state, i64 EPOCH_SLEEPERS
  call void @advance(ptr %state, ptr %sleepers.p)
  call void @steps(ptr %state, i64 0, ptr %steps, i64 %count)
  call void @set_floats(i64 %floats)
  ret void
}

define internal ptr @worker(ptr %record) nounwind {
entry:
  call void @set_floats(i64 DEFAULT_FLOATS)
  %state = load ptr, ptr %record
  %index.p = getelementptr i8, ptr %record, i64 WORKER_INDEX
  %index = load i64, ptr %index.p
  %sleepers.p = getelementptr i8, ptr %state, i64 EPOCH_SLEEPERS
  %spins.p = getelementptr i8, ptr %state, i64 IDLE_SPIN
  %spins = load i64, ptr %spins.p
  %stop.p = getelementptr i8, ptr %state, i64 STOP
  %steps.p = getelementptr i8, ptr %state, i64 STEPS
  %count.p = getelementptr i8, ptr %state, i64 COUNT
  br label %idle
idle:
  %seen = phi i32 [ 0, %entry ], [ %epoch, %work ]
  call void @wait(ptr %state, i32 %seen, ptr %sleepers.p, i64 %spins)
  %epoch = load atomic i32, ptr %state acquire, align 4
  %stop = load i32, ptr %stop.p
  %ending = icmp ne i32 %stop, 0
  br i1 %ending, label %end, label %work
work:
  %steps = load ptr, ptr %steps.p
  %count = load i64, ptr %count.p
  call void @steps(ptr %state, i64 %index, ptr %steps, i64 %count)
  br label %idle
end:
  ret ptr null
}
"""

_LIFE = """
define i32 @graphc_pool_start(ptr %state) nounwind {
entry:
  %threads.p = getelementptr i8, ptr %state, i64 THREADS
  %threads = load i64, ptr %threads.p
  %started.p = getelementptr i8, ptr %state, i64 STARTED
  %records = getelementptr i8, ptr %state, i64 WORKERS
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %index, %created ]
  %index = add i64 %i, 1
  %more = icmp slt i64 %index, %threads
  br i1 %more, label %create, label %done
create:
  %offset = mul i64 %i, WORKER_BYTES
  %record = getelementptr i8, ptr %records, i64 %offset
  %index.p = getelementptr i8, ptr %record, i64 WORKER_INDEX
  %handle.p = getelementptr i8, ptr %record, i64 WORKER_HANDLE
  store ptr %state, ptr %record
  store i64 %index, ptr %index.p
  %error = call i32 @pthread_create(ptr %handle.p, ptr null, ptr @worker, ptr %record)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %fail, label %created
created:
  store i64 %index, ptr %started.p
  br label %next
fail:
  ret i32 %error
done:
  ret i32 0
}

define void @graphc_pool_stop(ptr %state) nounwind {
entry:
  %stop.p = getelementptr i8, ptr %state, i64 STOP
  store i32 1, ptr %stop.p
  %sleepers.p = getelementptr i8, ptr %state, i64 EPOCH_SLEEPERS
  call void @advance(ptr %state, ptr %sleepers.p)
  %started.p = getelementptr i8, ptr %state, i64 STARTED
  %started = load i64, ptr %started.p
  %records = getelementptr i8, ptr %state, i64 WORKERS
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %join ]
  %more = icmp slt i64 %i, %started
  br i1 %more, label %join, label %done
join:
  %offset = mul i64 %i, WORKER_BYTES
  %record = getelementptr i8, ptr %records, i64 %offset
  %handle.p = getelementptr i8, ptr %record, i64 WORKER_HANDLE
  %handle = load i64, ptr %handle.p
  call i32 @pthread_join(i64 %handle, ptr null)
  %following = add i64 %i, 1
  br label %next
done:
  store i64 0, ptr %started.p
  ret void
}
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
"""

_WALK = """
define internal void @walk(ptr %steps, i64 %count) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %call ], [ %target, %decide ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %step, label %done
step:
  %function.p = getelementptr %step, ptr %steps, i64 %i
  %args.p = getelementptr %step, ptr %steps, i64 %i, i32 1
  %flags.p = getelementptr %step, ptr %steps, i64 %i, i32 2
  %function = load ptr, ptr %function.p
  %args = load ptr, ptr %args.p
  %flags = load i64, ptr %flags.p
  %decision.bit = and i64 %flags, DECISION
  %decision = icmp ne i64 %decision.bit, 0
  br i1 %decision, label %decide, label %call
decide:
  call void @decide(ptr %args)
  %target.p = getelementptr i8, ptr %args, i64 DECIDED
  %target = load i64, ptr %target.p
  br label %next
call:
  call void %function(ptr %args, i64 0, i64 1)
  %following = add i64 %i, 1
  br label %next
done:
  ret void
}
"""

_SERIAL = """
define void @graphc_serial(ptr %steps, i64 %count) nounwind {
  %floats = call i64 @save_floats()
  call void @set_floats(i64 DEFAULT_FLOATS)
  call void @walk(ptr %steps, i64 %count)
  call void @set_floats(i64 %floats)
  ret void
}
"""

_ALONE = """
define void @graphc_pool_alone(ptr %args, i64 %thread, i64 %threads) nounwind {
  %count.p = getelementptr i8, ptr %args, i64 8
  %steps = load ptr, ptr %args
  %count = load i64, ptr %count.p
  call void @walk(ptr %steps, i64 %count)
  ret void
}
"""
_OFFSETS = (
    "EPOCH_SLEEPERS", "ARRIVED", "PHASE_SLEEPERS", "PHASE", "STEPS", "COUNT", "THREADS", "IDLE_SPIN", "BARRIER_SPIN", "STARTED", "STOP",
    "PLACE", "CALLER_CPU", "MASK_BYTES", "MASK", "SCRATCH", "WORKERS", "WORKER_BYTES", "WORKER_INDEX", "WORKER_HANDLE", "NO_BARRIER",
    "THREAD_0", "DECISION", "DECIDED", "RAN", "REPEATS", "COUNTER", "TRIPS", "LENGTH", "CONDITION", "NEGATED", "BODY", "BEHIND", "LIMIT",
    "STATUS", "LAST", "MOVES", "MOVED",
)  # fmt: skip


def pool_ir(target: Target) -> str:
    """The pool's module. It calls pthread and Linux's futex; raises BackendError for a target that is not Linux."""
    architecture = _architecture(target)
    if "linux" not in target.triple:
        raise BackendError(f"no thread pool for {target.triple}: it needs Linux's futex", hint="threads=1")
    pause, declaration = _PAUSE[architecture]
    parts = [_STEP, _WAITING, _BARRIER, _MEETING, _DECIDE, _WALK, _ALONE, _STEPS, _PLACING, _RUN, _LIFE, _FLOATS[architecture], declaration]
    words = {"FUTEX": _FUTEX[architecture], "WAIT": _WAIT, "WAKE": _WAKE, "PAUSE": pause, "MASK_BITS": 8 * at.MASK_BYTES}
    return _module(target, parts, words)


def serial_ir(target: Target) -> str:
    """The module of `graphc_serial`, which calls nothing."""
    return _module(target, [_STEP, _DECIDE, _WALK, _SERIAL, _FLOATS[_architecture(target)]], {})


def _architecture(target: Target) -> str:
    architecture = target.triple.split("-")[0]
    if architecture not in _FUTEX:
        raise BackendError(f"no runtime for {architecture}", hint=f"one of {', '.join(_FUTEX)}")
    return architecture


def _module(target: Target, parts: list[str], words: dict[str, object]) -> str:
    """Parts with every name in capitals replaced by its value."""
    words = words | {name: getattr(at, name) for name in _OFFSETS} | {"DEFAULT_FLOATS": _DEFAULT_FLOATS[_architecture(target)]}
    text = re.sub(r"\b[A-Z][A-Z_0]+\b", lambda match: str(words[match.group()]), "".join(parts))
    return f'target triple = "{target.triple}"\n{text}\n'
