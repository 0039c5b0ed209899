#!/usr/bin/env bash
# Packs a `palm` that is built already as a Debian package: deb.sh [PROFILE [DIRECTORY]]. PROFILE is release (default) or dev.
# cargo-deb is built once (some minutes) into $PALM_TOOLS.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-release}
directory=${2:-.}
tools=${PALM_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/palm-tools}
version=3.8.0

if ! "$tools/bin/cargo-deb" --version 2>/dev/null | grep -q " $version$"; then
    echo "deb: building cargo-deb $version into $tools, once" >&2
    cargo install cargo-deb --version "$version" --locked --debug --root "$tools" --quiet
fi
# What the package brings besides is made by the program itself.
built=${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}
mkdir -p "$built/package"
"$built/palm" man "$built/package/man" >&2
"$built/palm" completions bash >"$built/package/palm.bash"
"$tools/bin/cargo-deb" -p palm --no-build --profile "$profile" --strip --fast --output "$directory"
