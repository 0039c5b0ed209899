"""Is a history of one register linearizable? The algorithm of Wing and Gong with Lowe's memory of (done, state), as Porcupine has it.

A register holds a value or None (absent). An operation is known by when it was called and when it returned; one whose outcome is not
known (a timeout, a 5xx) may take effect at any time after its call, or never.
"""

from __future__ import annotations

import dataclasses

NEVER = float("inf")
# Unknown writes in a row that explain one answer: a deletion and a creation, a write and a swap of it, and one more.
MAX_LINKS = 3


@dataclasses.dataclass(frozen=True)
class Op:
    """One call: `kind` with its argument, what was answered, and when. `result` is "ok", "refused" (a failed condition), or "unknown"."""

    kind: str  # put, create, swap, delete, get, exists
    called: float
    returned: float
    result: str
    value: str | None = None  # what a put, create or swap writes; what a get saw
    expected: str | None = None  # what a swap expects to find
    seen: bool | None = None  # what an exists saw
    client: str = ""

    def step(self, state: str | None) -> tuple[bool, str | None]:
        """Whether this outcome is right on `state`, and the state after it."""
        match self.kind, self.result:
            case "put", _:
                return True, self.value
            case "delete", _:
                return True, None
            case "create", "refused":
                return state is not None, state
            case "create", _:
                return state is None, self.value
            case "swap", "refused":
                return state != self.expected, state
            case "swap", _:
                return state == self.expected, self.value
            case "get", _:
                return state == self.value, state
            case "exists", _:
                return (state is not None) == self.seen, state
        raise ValueError(self.kind)


def problem(history: list[Op]) -> str | None:
    """None when some order of the operations explains all answers; otherwise the longest prefix that can be explained and what stood next.

    An unknown outcome need not take effect, and a read of unknown outcome says nothing. A write of unknown outcome is tried only where it
    makes an answer right that is wrong without it: it may take effect as late as that, and where nothing needs it, never. So many of them,
    as a partition leaves behind, cost little.
    """
    known = sorted((op for op in history if op.result != "unknown"), key=lambda op: op.called)
    unknown = [op for op in history if op.result == "unknown" and op.kind not in ("get", "exists")]
    everything = (1 << len(known)) - 1
    # What is done of the known, what of the unknown has taken effect, and the value then.
    start = (0, 0, None)
    seen, stack, furthest = {start}, [start], 0
    while stack:
        done, used, state = stack.pop()
        if done == everything:
            return None
        if done.bit_count() > furthest.bit_count():
            furthest = done
        # What was called before everything still open returned may come next.
        first_return = NEVER
        for at in range(_lowest_open(done), len(known)):
            if known[at].called > first_return:
                break
            if done >> at & 1:
                continue
            first_return = min(first_return, known[at].returned)
        for at in range(_lowest_open(done), len(known)):
            op = known[at]
            if op.called > first_return:
                break
            if done >> at & 1:
                continue
            for used_then, value in _explanations(op, state, used, unknown, first_return):
                following = (done | 1 << at, used_then, op.step(value)[1])
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
    open_ops = [op for at, op in enumerate(known) if not furthest >> at & 1]
    return f"{furthest.bit_count()} of {len(known)} known operations explained; next were\n" + "\n".join(f"  {op}" for op in open_ops[:8])


def _explanations(op: Op, state: str | None, used: int, unknown: list[Op], until: float, links: int = MAX_LINKS):
    """The values on which `op` is right: the present one, or those after unknown writes that can come before it, each with the unknown used.

    Several in a row are tried only where each is a condition of the next.
    """
    if op.step(state)[0]:
        yield used, state
        return
    for at, write in enumerate(unknown):
        if used >> at & 1 or write.called > until or links == 0:
            continue
        right, after = write.step(state)
        if not right:
            continue
        if op.step(after)[0]:
            yield used | 1 << at, after
        elif any(next_one.step(after)[0] and not next_one.step(state)[0] for next_one in unknown):
            yield from _explanations(op, after, used | 1 << at, unknown, until, links - 1)


def _lowest_open(done: int) -> int:
    """The place of the first operation that is not done."""
    return (~done & (done + 1)).bit_length() - 1
