# Everything sets itself up: Debian packages, libtorch, then the build. See README.md.
CARGO_FLAGS := --release --locked

.PHONY: build demo test check golden setup clean

build: setup
	cargo build $(CARGO_FLAGS)

setup:
	@scripts/setup.sh

demo: build
	scripts/demo.sh

test: setup
	cargo test $(CARGO_FLAGS)

check: setup
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps --document-private-items

golden:
	scripts/golden/make.sh

clean:
	cargo clean
