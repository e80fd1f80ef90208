# make demo         trains a captioner on drawn pictures, shows what it says
# make demo-sketch  trains Sketch-RNN on Kanji and shows what it draws
# make studio       serves a page to draw with, and to have photographs described,
#                   with these two models (trained first if they are absent) or
#                   others: make studio STUDIO='--workdir=runs/dog'
# make video        trains the four drawn tasks of video/, three seeds of each,
#                   and prints their tables beside the aims
# make test         runs the tests
# make lint         checks style
# make bench        times training, decoding, drawing and streaming, beside
#                   PyTorch where it is installed
# Each sets up .venv first, unless it is current. All are safe to repeat.
# The demos run on two devices, which on a CPU are two of its cores.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= runs/demo
DEMO_SKETCH ?= runs/demo-sketch
STUDIO ?=
TABLES ?= runs/tables
# Those that take longest come first, so that both cores end at about the same
# time. Leave VIDEO_ROWS empty to train all rows of the tables.
VIDEO ?= event_captions,occlusion_track,gesture_stream,ordered_motion
VIDEO_ROWS ?= temporal_attention,mean_pool,tracker,framewise,gru,bag
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Huge pages for large buffers, which saves the time of page faults.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo demo-sketch studio video test test-slow lint bench

.venv/current: pyproject.toml
	@echo 'Setting up .venv (once, and when pyproject.toml changes)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: .venv/current
	@echo 'Training a captioner on SYNTHETIC drawn pictures in $(DEMO)'
	XLA_FLAGS="$${XLA_FLAGS---xla_force_host_platform_device_count=2}" \
	  $(BIN)/python -m captioning.main --config=configs/scenes.py \
	  --workdir=$(DEMO)
	@echo 'Scores: $(DEMO)/results.json'
	@echo 'Captions with attention: $(DEMO)/results/test.png'

demo-sketch: .venv/current
	@echo 'Training Sketch-RNN on Kanji in $(DEMO_SKETCH)'
	XLA_FLAGS="$${XLA_FLAGS---xla_force_host_platform_device_count=2}" \
	  $(BIN)/python -m sketch_rnn.main --config=configs/sketch_kanji.py \
	  --workdir=$(DEMO_SKETCH)
	@echo 'Losses: $(DEMO_SKETCH)/results.json'
	@echo 'Drawings: $(DEMO_SKETCH)/results/test.png'

studio: .venv/current
	$(BIN)/python -m demo $(STUDIO)

# Runs that differ in the seed alone find what the first one has compiled.
video: .venv/current
	@echo 'Training on SYNTHETIC drawn clips in $(TABLES), two runs at once'
	JAX_COMPILATION_CACHE_DIR="$${JAX_COMPILATION_CACHE_DIR-$(TABLES)/compiled}" \
	  $(BIN)/python -m tables --table=$(VIDEO) \
	  --rows=$(VIDEO_ROWS) --seeds=0,1,2 --workdirs=$(TABLES) --run --jobs=2

test: .venv/current
	scripts/install_chromium.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/current
	$(BIN)/python -m pytest -m slow

lint: .venv/current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/current
	$(BIN)/python benchmarks/benchmark_captioning.py --output=runs/benchmark.json
	$(BIN)/python benchmarks/benchmark_sketch_rnn.py \
	  --output=runs/benchmark_sketch_rnn.json
	$(BIN)/python benchmarks/benchmark_video.py --output=runs/benchmark_video.json
