# One command for each need. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# What the build needs beside Rust and a C++ compiler is found, or installed, by scripts/setup; it
# prints the variables under which cargo then finds it.
ENV := eval "$$(scripts/setup)"

.PHONY: help setup run build test verify fix bench-layout fuzz-log

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Find or install what the build needs, and say what it is
	@scripts/setup --tell

run: ## Build, then start a ledger here: API on 127.0.0.1:7480, data in ./data
	@scripts/say-first
	@$(ENV) && cargo run --locked -p purser-node --bin purser -- dev

build: ## Build everything
	@scripts/say-first
	@$(ENV) && cargo build --locked --workspace --all-targets

test: ## Run every test
	@scripts/say-first
	@$(ENV) && scripts/test

verify: ## Look, change nothing: formatting, lints, docs
	@$(ENV) && cargo fmt --all --check
	@$(ENV) && cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(ENV) && RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

fix: ## Format, and apply what the lints can mend by themselves
	@$(ENV) && cargo fmt --all
	@$(ENV) && cargo clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged

bench-layout: ## How many plain debits one core applies a second (the layout gate)
	@$(ENV) && cargo run --locked -p purser-bench -- layout --wallets 10000
	@$(ENV) && cargo run --locked -p purser-bench -- layout --wallets 1000000
