#!/usr/bin/env bash
# Builds the `palm` of another commit, which is given, and prints where it is. What it depends on is not built again: the target
# directory is the usual one, whose own `palm` is then that other one until the next build.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short=7 "$1^{commit}")
old=$CARGO_TARGET_DIR/old/palm-$commit
if [ ! -x "$old" ]; then
    source=$CARGO_TARGET_DIR/old/source
    git worktree remove --force "$source" 2>/dev/null || true
    git worktree add --quiet --force --detach "$source" "$commit"
    (cd "$source" && cargo build -p palm --bin palm ${PALM_CARGO_FLAGS:-} >&2)
    cp "$CARGO_TARGET_DIR/debug/palm" "$old"
    git worktree remove --force "$source"
fi
echo "$old"
