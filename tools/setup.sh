#!/usr/bin/env bash
# Installs what building and testing PALM needs and is not there yet, saying what and why. Quick when nothing is missing.
# Writes $PALM_TOOLS/env, which Makefile recipes and watch.sh source.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${PALM_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/palm-tools}
venv=$tools/venv
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
mkdir -p "$tools"
export PATH="$HOME/.cargo/bin:$PATH"

say() { printf 'setup: %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
have() { command -v "$1" >/dev/null 2>&1; }

# -- the system's packages: a C++ compiler and libclang for RocksDB, Python for the clients

packages=()
have c++ || packages+=(build-essential)
have clang || packages+=(clang)
compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/libclang*.so*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ] \
    || [ "$(uname)" = Darwin ] || packages+=(libclang-dev)
have pkg-config || packages+=(pkg-config)
# The consistency test cuts peers off from each other, in a network namespace of its own.
[ "$(uname)" != Linux ] || have nft || [ -x /usr/sbin/nft ] || packages+=(nftables)
[ "$(uname)" != Linux ] || have ip || [ -x /usr/sbin/ip ] || packages+=(iproute2)
# Clients that examples/ tells of, and what finds the libraries that a Debian package needs.
! have apt-get || have restic || packages+=(restic)
! have apt-get || have dpkg-shlibdeps || packages+=(dpkg-dev)
# Ends backends at one system call after the other, and counts those of a read.
[ "$(uname)" != Linux ] || have strace || packages+=(strace)
have curl || have rustup || packages+=(curl ca-certificates)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3 python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
    if ! have apt-get; then
        say "please install these with your package manager, then run again: ${packages[*]}" >&2
        exit 1
    fi
    say "installing with apt-get: ${packages[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# -- a real browser for the console's tests, with a font to draw letters; where there is none to install (Ubuntu's is a snap) they are skipped

if grep -qs '^ID=debian' /etc/os-release && ! have chromium && ! have google-chrome; then
    say "installing with apt-get, for the console's tests: chromium fonts-dejavu-core"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core \
        || say "Chromium cannot be had here: the console's tests in a browser are skipped"
fi

# -- the Rust toolchain of rust-toolchain.toml

if ! have rustup; then
    say "installing rustup, Rust's installer, for this user"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --quiet --no-modify-path --profile minimal --default-toolchain none
fi
fallback=''
flags=''
if ! rustup toolchain list | grep -q "^$channel-"; then
    say "installing Rust $channel with clippy and rustfmt (rust-toolchain.toml)"
    if ! rustup toolchain install "$channel" --profile minimal --component clippy,rustfmt --no-self-update; then
        say "Rust $channel cannot be had here: building with the installed stable toolchain instead"
        fallback=stable
        flags=--ignore-rust-version
    fi
fi
{
    printf 'export PATH="%s/bin:%s/bin:%s/.cargo/bin:$PATH"\n' "$venv" "$tools" "$HOME"
    printf 'export PALM_CARGO_FLAGS="%s"\n' "$flags"
    [ -z "$fallback" ] || printf 'export RUSTUP_TOOLCHAIN=%s\n' "$fallback"
} >"$tools/env.new"
mv "$tools/env.new" "$tools/env"

# -- the S3 clients, message brokers and pytest, in an environment of their own

wanted=$(cksum <s3-tests/requirements.txt)
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    say "installing with pip into $venv: $(grep -v '^#' s3-tests/requirements.txt | paste -sd' ')"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r s3-tests/requirements.txt
    printf '%s' "$wanted" >"$venv/.installed"
fi

# -- Prometheus, for the tests of monitoring/: Debian's package unpacked, not installed, so that no service starts

if ! { have prometheus && have promtool; } && [ ! -x "$tools/bin/promtool" ]; then
    if have apt-get && have dpkg; then
        say "unpacking Debian's package prometheus into $tools/prometheus"
        apt-cache show prometheus >/dev/null 2>&1 || as_root apt-get update -qq
        rm -rf "$tools/prometheus"
        mkdir -p "$tools/prometheus" "$tools/bin"
        (cd "$tools/prometheus" && apt-get download -qq prometheus 2>/dev/null && dpkg -x prometheus_*.deb . && rm prometheus_*.deb) \
            && ln -sf "$tools/prometheus/usr/bin/prometheus" "$tools/prometheus/usr/bin/promtool" "$tools/bin/" \
            || say "Prometheus cannot be had here: the tests that need it are skipped"
    else
        say "no prometheus and promtool here: the tests that need them are skipped"
    fi
fi
