#!/usr/bin/env bash
# Checks licences, sources and the security floors of deny.toml; advisories too where their database can be reached.
# cargo-deny is built once (some minutes) into $PALM_TOOLS; PALM_DENY=skip leaves all this out.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${PALM_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/palm-tools}
version=0.20.2

if [ "${PALM_DENY:-}" = skip ]; then
    echo "deny: skipped, as PALM_DENY=skip asks"
    exit 0
fi
if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -q " $version$"; then
    echo "deny: building cargo-deny $version into $tools, once"
    # Unoptimised: that builds in a third of the time, and it reads a few thousand short files.
    cargo install cargo-deny --version "$version" --locked --debug --root "$tools" --quiet
fi
"$tools/bin/cargo-deny" --log-level error check --hide-inclusion-graph licenses bans sources
if "$tools/bin/cargo-deny" --log-level error fetch db >/dev/null 2>&1; then
    "$tools/bin/cargo-deny" --log-level error check --hide-inclusion-graph advisories
else
    echo "deny: the advisory database cannot be reached from here, advisories not checked"
fi
