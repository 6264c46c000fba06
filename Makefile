# One door for people: `make` alone lists the targets. What a step does is in scripts/ or in cargo.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := bash

WORK := $(CURDIR)/.work
CARGO_TARGET_DIR ?= $(CURDIR)/target
RELEASE := $(abspath $(CARGO_TARGET_DIR))/release
PYTHON := $(WORK)/venv/bin/python
ORT_VERSION := $(shell sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' scripts/onnxruntime.txt)
ORT_DYLIB_PATH ?= $(WORK)/onnxruntime/libonnxruntime.so.$(ORT_VERSION)
CLIP := .work/media/demo.mp4

INPUT ?= $(CLIP)
MODEL ?= models/cartoon.onnx
BATCH ?= 4
SEQUENCES ?= 10000
SECONDS ?= 60
TARGETS ?=
MINUTES ?= 10
LISTEN ?= 127.0.0.1:8889

PRODUCTS := --release --locked -p gst-plugin-comfy -p gst-plugin-trickle -p comfystream -p trickle-relay

PREFIX ?= /usr/local
# GStreamer's own plugin folder where the prefix is GStreamer's, else the same place below the prefix given.
PLUGINSDIR ?= $(shell test "$$(pkg-config --variable=prefix gstreamer-1.0)" = "$(PREFIX)" \
	&& pkg-config --variable=pluginsdir gstreamer-1.0 || echo "$(PREFIX)/lib/gstreamer-1.0")
# The plugin looks for ONNX Runtime in ../comfy beside its own folder.
RUNTIMEDIR = $(abspath $(PLUGINSDIR)/../comfy)
DATADIR = $(PREFIX)/share/gst-comfy

export CARGO_TARGET_DIR ORT_DYLIB_PATH

.PHONY: help setup build clip demo test model-test fuzz bench bench-web gpu-test gpu-bench gpu-pack gpu-try soak screenshots doc env install clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS=$$'\t' read -r target text; do printf '  make %-11s %s\n' "$$target" "$$text"; done

setup: ## fetch what is missing: Debian packages, ONNX Runtime
	@scripts/setup.sh

build: setup ## the plugins, comfystream and trickle-relay, optimised, in target/release
	cargo build $(PRODUCTS)

$(CLIP): scripts/make_clip.py scripts/pictures.txt scripts/requirements.txt
	@scripts/setup.sh packages python pictures
	@"$(PYTHON)" scripts/make_clip.py --out $@

clip: $(CLIP) ## the demo clip, .work/media/demo.mp4

demo: build $(filter $(CLIP),$(INPUT)) ## a video through a model, then the page with a camera: INPUT=clip.mp4 MODEL=models/cartoon.onnx BATCH=4 LISTEN=127.0.0.1:8889
	@scripts/demo.sh "$(RELEASE)" "$(INPUT)" "$(MODEL)" "$(BATCH)" "$(LISTEN)"

test: setup ## everything that has to pass before a change goes in
	@scripts/test.sh

model-test: setup ## the policies against their models, longer than `make test`: SEQUENCES=10000
	PROPTEST_CASES="$(SEQUENCES)" COMFY_SEQUENCES="$(SEQUENCES)" cargo test --release --workspace --locked model

fuzz: setup ## garbage for what hears the network, so long each: SECONDS=60 TARGETS="server ts"
	@scripts/fuzz.sh "$(SECONDS)" $(TARGETS)

bench: build $(CLIP) ## measurements, in out/bench; PARTS=relay for one part
	@scripts/setup.sh python
	cargo build $(PRODUCTS) -p comfy-tests
	@scripts/bench.sh

bench-web: build ## a browser beside the service, half an hour: SECONDS=60 a row, MINUTES=10; PART=glass for one part
	@scripts/setup.sh browser
	cargo build --release --locked -p comfy-tests --bin peers
	@node tests/browser/bench/run.mjs "$(RELEASE)/comfystream" "$(RELEASE)/peers" "seconds=$(SECONDS)" "minutes=$(MINUTES)" $(if $(PART),"part=$(PART)")

gpu-test: ## the tests that need an NVIDIA GPU, and fail without one
	@scripts/gpu.sh test

gpu-bench: ## what a GPU does, half an hour on a machine with one: TORCH_PYTHON=/a/python/with/torch ENGINE=model.engine
	@scripts/gpu.sh bench

gpu-pack: ## both of these, to carry to a machine without a network, in out/gpu
	@scripts/gpu.sh pack

gpu-try: ## the same in tiny sizes on a simulated device: to see that it works
	@scripts/gpu.sh try

soak: setup ## a relay under load: does memory stay flat, and lag? MINUTES=10
	cargo build $(PRODUCTS) -p comfy-tests
	"$(RELEASE)/trickle_load" soak --minutes "$(MINUTES)"

screenshots: build $(CLIP) ## the README's pictures of the page, and every page at three widths in out/screenshots
	@scripts/setup.sh browser
	@node services/comfystream/page/screenshots.mjs "$(RELEASE)/comfystream" "$(CLIP)"
	@scripts/screenshots.sh "$(RELEASE)/comfystream" out/screenshots

doc: setup ## the crates' documentation, in target/doc
	cargo doc --workspace --no-deps --locked

env: ## settings for a shell: eval "$(make -s env)"
	@echo "export GST_PLUGIN_PATH='$(RELEASE)'\"\$${GST_PLUGIN_PATH:+:\$$GST_PLUGIN_PATH}\""
	@echo "export ORT_DYLIB_PATH='$(ORT_DYLIB_PATH)'"
	@echo "export PATH='$(RELEASE)':\"\$$PATH\""

# Builds nothing itself when run by root after `make build`, because cargo may be the user's alone.
install: ## what `make build` made, to PREFIX=/usr/local (DESTDIR, PLUGINSDIR)
	@test -e "$(RELEASE)/libgstcomfy.so" -a -e "$(RELEASE)/libgsttrickle.so" -a -e "$(RELEASE)/comfystream" -a -e "$(RELEASE)/trickle-relay" || { echo "nothing to install: run 'make build' first" >&2; exit 2; }
	install -D -m 755 "$(RELEASE)/libgstcomfy.so" "$(DESTDIR)$(PLUGINSDIR)/libgstcomfy.so"
	install -D -m 755 "$(RELEASE)/libgsttrickle.so" "$(DESTDIR)$(PLUGINSDIR)/libgsttrickle.so"
	install -D -m 755 "$(RELEASE)/comfystream" "$(DESTDIR)$(PREFIX)/bin/comfystream"
	install -D -m 755 "$(RELEASE)/trickle-relay" "$(DESTDIR)$(PREFIX)/bin/trickle-relay"
	install -D -m 644 -t "$(DESTDIR)$(RUNTIMEDIR)" .work/onnxruntime/libonnxruntime.so.$(ORT_VERSION) .work/onnxruntime/LICENSE .work/onnxruntime/ThirdPartyNotices.txt
	install -D -m 644 -t "$(DESTDIR)$(DATADIR)/models" models/*.onnx models/*.toml
	install -D -m 644 -t "$(DESTDIR)$(DATADIR)" LICENSE
	@test "$(PLUGINSDIR)" = "$$(pkg-config --variable=pluginsdir gstreamer-1.0)" || echo "GStreamer finds the plugins with GST_PLUGIN_PATH=$(PLUGINSDIR)"

# A target folder outside this one may hold other projects' work too, so it stays.
clean: ## remove everything generated
	rm -rf target .work out build fuzz/corpus fuzz/artifacts
