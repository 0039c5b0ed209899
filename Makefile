# PALM: one command for each habit. `make` alone lists them.
# `make demo` and `make test` each do all their set-up on a fresh machine; what is already there is left alone.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.SILENT:

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
# Outside the work tree, so that every clone and branch shares the one build of RocksDB (15 minutes on two cores).
export CARGO_TARGET_DIR ?= $(CACHE)/palm-target
# The Python environment, the Cargo tools and `env`, which tools/setup.sh writes: PATH and toolchain for every recipe.
export PALM_TOOLS ?= $(CACHE)/palm-tools
ENV := source "$(PALM_TOOLS)/env"

POOL ?= dev
PEER ?= 2
SOAK_SECONDS ?= 600

.PHONY: help setup build test test-conformance compatibility test-long test-mixed soak-sim soak-peers soak-consistency lint deb demo bench \
	bench-backends bench-million book console pictures \
	dev-create dev-discover dev-join create discover join

help: ## this list
	awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: compiler toolchain, clang, S3 clients, cargo-deny (says what)
	tools/setup.sh

# With the examples come the features of the tests' dependencies: tests and demo share one build.
build: setup ## build every crate
	$(ENV)
	cargo build --workspace --bins --examples $$PALM_CARGO_FLAGS

lint: setup ## formatting, clippy, docs, licences and the names used in Python, warnings refused
	$(ENV)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $$PALM_CARGO_FLAGS -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --quiet $$PALM_CARGO_FLAGS
	ruff check --no-cache --select E9,F s3-tests examples monitoring
	tools/deny.sh

test: lint ## everything CI runs: lint, unit tests, then real clients against pools of real processes
	$(ENV)
	cargo test --workspace $$PALM_CARGO_FLAGS
	cargo test -p palm-core --features sim $$PALM_CARGO_FLAGS
	cargo build --workspace --bins --examples $$PALM_CARGO_FLAGS
	cd s3-tests
	pytest --peers 1 -m conformance
	pytest $(TESTS)

test-conformance: build ## what S3 is: against a lone peer, then with every request at a random peer of four
	$(ENV)
	cd s3-tests
	pytest --peers 1 -m conformance --results="$(CARGO_TARGET_DIR)/one-peer.json" $(TESTS)
	pytest --peers 4 -m conformance --results="$(CARGO_TARGET_DIR)/four-peers.json" $(TESTS)

compatibility: test-conformance ## docs/s3-compatibility.md anew, from what these tests saw
	$(ENV)
	cd s3-tests
	python compatibility.py "$(CARGO_TARGET_DIR)/one-peer.json" "$(CARGO_TARGET_DIR)/four-peers.json" > ../docs/s3-compatibility.md

test-long: build ## the black-box tests with full counts and sizes: 1,000 rounds, 5 GiB, all pairs of peers (an hour)
	$(ENV)
	cd s3-tests
	pytest --long $(TESTS)

test-mixed: setup ## pools whose members are of two versions, this one and that of the commit OLD
	$(ENV)
	old=$$(tools/old-binary.sh $(or $(OLD),HEAD~1))
	cargo build --workspace --bins --examples $$PALM_CARGO_FLAGS
	cd s3-tests
	PALM_OLD_BIN=$$old pytest cases/test_upgrade.py

soak-consistency: build ## kill, freeze and cut off real peers under clients for SOAK_SECONDS (600): is what they saw linearizable? (root)
	$(ENV)
	cd s3-tests
	unshare --net python consistency.py --seconds $(SOAK_SECONDS)

soak-peers: setup ## whole peers in simulation, SEEDS seeds (500) from FROM (1000) on: crashes, partitions, clock jumps, all in virtual time
	$(ENV)
	PALM_SIM_SEEDS=$(or $(SEEDS),500) PALM_SIM_FIRST=$(or $(FROM),1000) \
		cargo test -p palm --test sim $$PALM_CARGO_FLAGS -- seeds_run_clean --nocapture

soak-sim: setup ## the ledger in simulation: 20,000 seeds with faults, every history checked (SEEDS=n FROM=n)
	$(ENV)
	cargo run -p palm-core --features sim --example soak $$PALM_CARGO_FLAGS -- --seeds $(or $(SEEDS),20000) --from $(or $(FROM),0)

deb: setup ## a Debian package of a release build, here (the first release build compiles RocksDB once more)
	$(ENV)
	cargo build --release -p palm $$PALM_CARGO_FLAGS
	packaging/deb.sh

demo: build ## five peers, real files, two of them killed: a table of what happened (KEEP=1 leaves the pool up, MIXED=1: all kinds of backends)
	$(ENV)
	python s3-tests/demo.py

bench: build ## speed of a fresh five-peer pool: large and small objects, listing, memory
	$(ENV)
	python s3-tests/bench.py

bench-backends: setup ## what storing, reading and listing cost with each storage backend (five minutes; PALM_BENCH_DIR=where)
	$(ENV)
	cargo bench -p palm-backends --profile dev --features opendal-fs --bench backends $$PALM_CARGO_FLAGS

bench-million: setup ## a million fragments of 4 KiB in one `disk` backend below DIR: bytes taken, opening, accesses for each read (5 GiB)
	$(ENV)
	cargo run -p palm-backends --example million $$PALM_CARGO_FLAGS -- $(or $(DIR),$(CARGO_TARGET_DIR)/million) $(COUNT)

# The pages stand where they are read on GitHub. For the book they and what they lead to are laid side by side, so that every link leads there too.
book: ## the pages as a book, target/book/index.html (mdbook has to be there: `cargo install mdbook`)
	rm -rf target/book target/book-source
	mkdir -p target/book-source
	git ls-files -z '*.md' docs examples monitoring backends/src src/palm/src/object | xargs -0 cp --parents -t target/book-source
	mv target/book-source/docs/book.toml target/book-source
	sed -e 's|](|](docs/|' -e 's|docs/\.\./||' target/book-source/docs/SUMMARY.md > target/book-source/SUMMARY.md
	rm target/book-source/docs/SUMMARY.md
	mdbook build target/book-source

console: ## the console's pages anew, after a change to their sources (npm); they are part of the binary and of the repository
	cd src/palm/console
	npm ci --no-fund --no-audit
	npm run build

pictures: build ## docs/images anew: the console of a pool at work, in a real browser
	$(ENV)
	python s3-tests/pictures.py docs/images

dev-create: setup ## a pool of one that rebuilds and restarts itself when the source changes (POOL=name)
	./watch.sh create $(POOL)

dev-discover: setup ## pools seen on this machine, again after every change
	./watch.sh discover

dev-join: setup ## one more peer for dev-create's pool, restarting on change (PEER=2, 3, …)
	./watch.sh join $(PEER)

create: build ## like dev-create, without watching
	./watch.sh --once create $(POOL)

discover: build ## like dev-discover, once
	./watch.sh --once discover

join: build ## like dev-join, without watching
	./watch.sh --once join $(PEER)
