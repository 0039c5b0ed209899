#!/usr/bin/env bash
# Fast reload for development: builds, runs, and on every change of the source builds again and restarts.
#
#   ./watch.sh create [NAME]    a pool of one, found by the others
#   ./watch.sh join [N]         peer N (2, 3, …) of the pool that `create` made; run it in as many shells as you like
#   ./watch.sh discover         the pools seen on this machine
#   ./watch.sh test [ARGS]      unit tests, then pytest with ARGS
#   ./watch.sh --once …         the same, once, without watching
#
# Peers listen on loopback and speak mDNS on `lo` alone. Their data stays in $PALM_DEV (remove it to begin anew), so a restarted
# peer is the same member of the same pool. A build that fails leaves the running peer as it is.
set -euo pipefail
cd "$(dirname "$0")"

cache=${XDG_CACHE_HOME:-$HOME/.cache}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/palm-target}
tools=${PALM_TOOLS:-$cache/palm-tools}
dev=${PALM_DEV:-$CARGO_TARGET_DIR/dev}
export PALM_DISCOVERY__INTERFACES=${PALM_DISCOVERY__INTERFACES:-lo}
export PALM_QUIC__ADDRESS=${PALM_QUIC__ADDRESS:-127.0.0.1:5000}

palm=$CARGO_TARGET_DIR/debug/palm
poll_seconds=0.5
child=
once=

if [ "${1:-}" = --once ]; then once=yes; shift; fi
what=${1:-}
case $what in
    create | join | discover | test) shift ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac

[ -f "$tools/env" ] || tools/setup.sh
# shellcheck source=/dev/null
source "$tools/env"

say() { printf '\033[1mwatch:\033[0m %s\n' "$*"; }

# Arguments of peer N: its own folder and ports.
listen() { echo "--data $dev/peer-$1 --s3 127.0.0.1:$((9000 + 10 * ($1 - 1))) --admin 127.0.0.1:$((9001 + 10 * ($1 - 1)))"; }
quic() { echo $((5000 + $1 - 1)); }
is_member() { [ -d "$dev/peer-$1/data" ] || [ -n "$(ls -A "$dev/peer-$1" 2>/dev/null)" ]; }

# The first value of a field in a line of JSON.
field() { python3 -c 'import json,sys; v=json.load(sys.stdin)
for k in sys.argv[1:]: v=v[int(k)] if isinstance(v,list) else v[k]
print(v)' "$@"; }

build() { cargo build --workspace --quiet ${PALM_CARGO_FLAGS:-}; }

run_create() {
    if is_member 1; then
        exec "$palm" serve $(listen 1) --quic "127.0.0.1:$(quic 1)"
    fi
    exec "$palm" create-pool --name "${1:-dev}" --port "$(quic 1)" $(listen 1)
}

run_join() {
    local number=${1:-2}
    if is_member "$number"; then
        exec "$palm" serve $(listen "$number") --quic "127.0.0.1:$(quic "$number")"
    fi
    local pools token
    pools=$("$palm" discover-pools --timeout 5 --json)
    token=$("$palm" invite --data "$dev/peer-1" --json | field join_token)
    exec "$palm" join-pool --pool-id "$(field pools 0 id <<<"$pools")" --coordinator "$(field pools 0 address <<<"$pools")" \
        --token "$token" --port "$(quic "$number")" $(listen "$number")
}

run_discover() { exec "$palm" discover-pools --timeout 5; }

run_test() {
    cargo test --workspace ${PALM_CARGO_FLAGS:-} && cd s3-tests && exec pytest "$@"
}

stop() {
    [ -n "$child" ] || return 0
    kill -TERM "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
    child=
}

changed_since() { [ -n "$(find src backends bench s3-tests Cargo.toml -newer "$1" \( -name '*.rs' -o -name '*.toml' -o -name '*.py' \) -print -quit)" ]; }

if [ -n "$once" ]; then build && "run_$what" "$@"; fi

# Polling keeps this free of tools to install: finding one newer file among some hundred takes a millisecond or two.
stamp=$(mktemp)
trap 'stop; rm -f "$stamp"' EXIT
trap 'exit 130' INT TERM
while :; do
    touch "$stamp"
    say "building"
    if build; then
        stop
        say "$what $*"
        ("run_$what" "$@") &
        child=$!
    else
        say "the build failed; waiting for a change"
    fi
    until changed_since "$stamp"; do sleep "$poll_seconds"; done
done
