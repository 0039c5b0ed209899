"""Is a history of one register linearizable? The algorithm of Wing and Gong with Lowe's memory of (done, state), as Porcupine has it.

A register holds a value or None (absent). An operation is known by when it was called and when it returned; one whose outcome is not
known (a timeout, a 5xx) may take effect at any time after its call, or never.
"""

from __future__ import annotations

import dataclasses

NEVER = float("inf")


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

    An unknown outcome need not take effect, and a read of unknown outcome says nothing.
    """
    ops = sorted((op for op in history if op.result != "unknown" or op.kind not in ("get", "exists")), key=lambda op: op.called)
    returned = [NEVER if op.result == "unknown" else op.returned for op in ops]
    needed = sum(1 << at for at, op in enumerate(ops) if op.result != "unknown")
    start = (0, None)
    seen, stack, furthest = {start}, [start], 0
    while stack:
        done, state = stack.pop()
        if done & needed == needed:
            return None
        if (done & needed).bit_count() > (furthest & needed).bit_count():
            furthest = done
        # What was called before everything still open returned may come next.
        first_return = NEVER
        for at in range(_lowest_open(done), len(ops)):
            if ops[at].called > first_return:
                break
            if not done >> at & 1:
                first_return = min(first_return, returned[at])
                right, after = ops[at].step(state)
                following = (done | 1 << at, after)
                if right and following not in seen:
                    seen.add(following)
                    stack.append(following)
    open_ops = [op for at, op in enumerate(ops) if not furthest >> at & 1]
    return f"{furthest.bit_count()} of {len(ops)} operations explained; next were\n" + "\n".join(f"  {op}" for op in open_ops[:8])


def _lowest_open(done: int) -> int:
    """The place of the first operation that is not done."""
    return (~done & (done + 1)).bit_length() - 1
