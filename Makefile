# Everything sets itself up: Debian packages, libtorch, then the build. See README.md.
CARGO_FLAGS := --release --locked

# Of `make reproduce`: how many seeds, and where to compute.
SEEDS := 1
DEVICE := auto

.PHONY: build demo reproduce test torture check golden setup clean

build: setup
	cargo build $(CARGO_FLAGS)

setup:
	@scripts/setup.sh

demo: build
	scripts/demo.sh

reproduce: build
	$${CARGO_TARGET_DIR:-target}/release/animatediff reproduce --seeds $(SEEDS) --device $(DEVICE)

test: setup
	cargo test $(CARGO_FLAGS)

torture: setup
	scripts/torture.sh

check: setup
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps --document-private-items

golden:
	scripts/golden/make.sh

clean:
	cargo clean
