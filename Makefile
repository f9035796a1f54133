# One command for each need. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help setup run build test sim sim-mutants verify coverage fix demo bench bench-peers bench-layout bench-stages instructions

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Find, install or compile what the build needs (RocksDB: once, 10 to 15 minutes)
	@scripts/setup

run: ## Build, then start a ledger here: API on 127.0.0.1:7480, data in ./data
	@scripts/setup
	@cargo run --locked -p purser-node --bin purser -- dev

build: ## Build everything
	@scripts/setup
	@cargo build --locked --workspace --all-targets

test: ## Run every test
	@scripts/setup
	@scripts/test

sim: ## Let everything fail, the same way each time: SEED=7 runs one seed, SEEDS=500 so many
	@scripts/setup
	@scripts/sim $(if $(SEED),run --seed $(SEED) $(if $(TRACE),--trace $(TRACE)),sweep --seeds $(or $(SEEDS),100) --from $(or $(FROM),1))

sim-mutants: ## Plant bugs one after the other, each until the simulation finds it: SEEDS=150 for each at most
	@scripts/setup
	@scripts/sim mutants --seeds $(or $(SEEDS),150)

verify: ## Look, change nothing: formatting, lints, docs
	@scripts/setup
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	@# There, tokio's Instant is std's under a clock of the simulation: banned calls are found above.
	@scripts/sim cargo clippy --locked -p purser-node --lib -- -D warnings -A clippy::disallowed_methods
	@scripts/sim cargo clippy --locked -p purser-sim --all-targets -- -D warnings -A clippy::disallowed_methods
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	@cargo test --locked --quiet -p purser-proto --test coverage

coverage: ## Write docs/coverage.md: for each method and reason what tests it
	@scripts/setup
	@PURSER_WRITE_COVERAGE=1 cargo test --locked --quiet -p purser-proto --test coverage

fix: ## Format, and apply what the lints can mend by themselves
	@scripts/setup
	@cargo fmt --all
	@cargo clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged

demo: ## Three nodes here, a load, kill -9, and an audit of every acknowledged debit
	@scripts/setup
	@cargo build --locked -p purser-node --bin purser -p purser-bench --bin purser-bench
	@cargo run --locked --quiet -p purser-bench -- demo $(DEMO)

bench: ## Debits through real servers: speed, latency, cost; four minutes (BENCH="--help" tells more)
	@scripts/setup
	@cargo build --locked -p purser-node --bin purser -p purser-bench --bin purser-bench
	@cargo run --locked --quiet -p purser-bench -- run $(BENCH)

bench-peers: ## The same work on Purser and on PostgreSQL in turn, in about 17 minutes; installs nothing
	@scripts/setup
	@cargo build --locked -p purser-node --bin purser -p purser-bench --bin purser-bench
	@cargo run --locked --quiet -p purser-bench -- peers $(PEERS)

bench-layout: ## How many plain debits one core applies a second (the layout gate)
	@scripts/setup
	@cargo run --locked -p purser-bench -- layout --wallets 10000
	@cargo run --locked -p purser-bench -- layout --wallets 1000000

bench-stages: ## How long each stage of a debit takes by itself
	@cargo bench --locked --quiet --profile dev -p purser-node --bench stages

instructions: ## Count the instructions of a debit: more than 3 % above what is written down fails
	@scripts/setup
	@scripts/instructions
