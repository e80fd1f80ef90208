# `make help` lists the targets: the lines with two number signs.
# Each sets up .venv first, unless it is current. All are safe to repeat.
# demo-sketch runs on two devices, which on a CPU are two of its cores; the small
# batches of demo are faster on one, which uses both cores, too.

# The newest of 3.13, 3.12 and 3.11 that is found.
PYTHON ?= $(shell scripts/find_python.sh)
VENV ?= .venv
EXTRAS ?= test
BIN := $(VENV)/bin
DEMO ?= runs/demo
DEMO_SKETCH ?= runs/demo-sketch
STUDIO ?=
# Of `make flickr8k`: a directory with images/, Flickr8k.token.txt and the three
# lists, weights of a ResNet-50, a model of configs/flickr8k.py.
FLICKR8K ?= Flickr8k
RESNET50 ?= resnet50.safetensors
CAPTIONER ?= soft
FLICKR8K_RUNS ?= runs/flickr8k
TABLES ?= runs/tables
# The longest first, so that both cores end at about the same time. Leave
# VIDEO_ROWS empty to train all rows of the tables.
VIDEO ?= event_captions,occlusion_track,gesture_stream,ordered_motion
VIDEO_ROWS ?= temporal_attention,mean_pool,tracker,framewise,gru,bag
# Flags of tests/torture, as in --quick; --only=kills --seed=3.
TORTURE ?=
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Huge pages for large buffers: fewer page faults.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.DEFAULT_GOAL := help
.PHONY: help demo demo-sketch flickr8k studio video test test-quick test-slow torture lint bench

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' \
	  $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "For another model: make studio STUDIO='--workdir=runs/dog'"
	@echo 'In another directory: make demo DEMO=DIR'

$(VENV)/current: pyproject.toml
	@echo 'Setting up $(VENV) (once, and when pyproject.toml changes)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-warn-script-location --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/current ## Train an image captioner on SYNTHETIC images; caption its test split
	@echo 'Training a captioner on SYNTHETIC images in $(DEMO)'
	$(BIN)/python -m captioning.main --config=configs/scenes.py --workdir=$(DEMO)
	@echo 'Captions with attention: $(DEMO)/results/test.png. To try next:'
	@echo '  $(BIN)/python -m captioning.evaluate --workdir=$(DEMO) --page'
	@echo "  make studio STUDIO='--workdir=$(DEMO)'"

demo-sketch: $(VENV)/current ## Train Sketch-RNN on Kanji; draw with it
	@echo 'Training Sketch-RNN on Kanji in $(DEMO_SKETCH)'
	XLA_FLAGS="$${XLA_FLAGS---xla_force_host_platform_device_count=2}" \
	  $(BIN)/python -m sketch_rnn.main --config=configs/sketch_kanji.py \
	  --workdir=$(DEMO_SKETCH)
	@echo 'Drawings: $(DEMO_SKETCH)/results/test.png. To try next:'
	@echo '  $(BIN)/python -m sketch_rnn.sample sample --count=40' \
	  '--workdir=$(DEMO_SKETCH) --output=$(DEMO_SKETCH)/samples'
	@echo "  make studio STUDIO='--workdir=$(DEMO_SKETCH)'"

# By cross-entropy, then self-critically. The data set is prepared once, and a
# training that was stopped goes on.
FLICKR8K_DATA := $(FLICKR8K_RUNS)/data
FLICKR8K_PREPARED := $(FLICKR8K_DATA)/captioned_images/flickr8k/1.0.0/dataset_info.json
FLICKR8K_SETTINGS = --config.data.data_dir=$(FLICKR8K_DATA) \
  --config.encoder_weights=$(RESNET50)

$(FLICKR8K_PREPARED): | $(VENV)/current
	@test -e $(FLICKR8K)/Flickr8k.token.txt && test -d $(FLICKR8K)/images \
	  && test -e $(RESNET50) || { printf '%s\n' \
	  'FLICKR8K=$(FLICKR8K) must have images/, Flickr8k.token.txt and' \
	  'Flickr_8k.{train,dev,test}Images.txt: its authors give them on request,' \
	  'see docs/data.md. RESNET50=$(RESNET50) must be a ResNet-50 in' \
	  "torchvision's naming, such as timm/resnet50.tv_in1k of the Hugging Face" \
	  'hub: make flickr8k FLICKR8K=DIR RESNET50=FILE'; exit 1; }
	$(BIN)/python scripts/prepare_captions.py --name=flickr8k --skip_bad \
	  --images=$(FLICKR8K)/images --captions=$(FLICKR8K)/Flickr8k.token.txt \
	  --splits=$(FLICKR8K) --data_dir=$(FLICKR8K_DATA)

flickr8k: $(VENV)/current $(FLICKR8K_PREPARED) ## Train a captioner of photographs on Flickr8k, open the page
	$(BIN)/python -m captioning.main --config=configs/flickr8k.py:$(CAPTIONER) \
	  --workdir=$(FLICKR8K_RUNS)/cross_entropy $(FLICKR8K_SETTINGS)
	$(BIN)/python -m captioning.main \
	  --config=configs/flickr8k.py:$(CAPTIONER)/self_critical \
	  --config.start_from=$(FLICKR8K_RUNS)/cross_entropy \
	  --workdir=$(FLICKR8K_RUNS)/self_critical $(FLICKR8K_SETTINGS)
	$(BIN)/python -m demo --workdir=$(FLICKR8K_RUNS)/self_critical

# What was compiled is kept: the second start is faster.
studio: $(VENV)/current ## Serve a web page for drawing and captioning with released models
	@JAX_COMPILATION_CACHE_DIR="$${JAX_COMPILATION_CACHE_DIR-runs/compiled}" \
	  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.2 \
	  $(BIN)/python -m demo $(STUDIO)

# Runs that differ in the seed alone share one compilation.
video: $(VENV)/current ## Train the four SYNTHETIC tasks of video/; print their tables
	@echo 'Training on SYNTHETIC clips in $(TABLES), two runs at once'
	JAX_COMPILATION_CACHE_DIR="$${JAX_COMPILATION_CACHE_DIR-$(TABLES)/compiled}" \
	  $(BIN)/python -m tables --table=$(VIDEO) \
	  --rows=$(VIDEO_ROWS) --seeds=0,1,2 --workdirs=$(TABLES) --run --jobs=2
	@echo 'Tables: $(TABLES)/TABLE.md and TABLE.png. To try next:'
	@echo "  make studio STUDIO='--workdir=$(TABLES)/event_captions/temporal_attention_0'"

test: $(VENV)/current ## Run the tests, but the slow ones
	scripts/install_chromium.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What depends most on the versions of Python and of the libraries.
QUICK := tests/test_recurrent_*.py tests/test_training_*.py \
  tests/test_vision_*.py tests/test_configs.py tests/test_architecture.py \
  tests/test_captioning_losses.py tests/test_captioning_published.py \
  tests/test_sketch_rnn_losses.py tests/test_sketch_rnn_published.py \
  tests/test_captioning_data.py tests/test_video_data.py

test-quick: $(VENV)/current ## Run a selection of the tests, for another Python
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(QUICK)

test-slow: $(VENV)/current ## Run the slow tests
	$(BIN)/python -m pytest -m slow

torture: $(VENV)/current ## Kill, damage and overload everything, for half an hour
	PYTHONPATH=tests $(BIN)/python -m torture $(TORTURE)

lint: $(VENV)/current ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/current ## Time training and inference, beside PyTorch where it is installed
	$(BIN)/python benchmarks/benchmark_captioning.py --output=runs/benchmark.json
	$(BIN)/python benchmarks/benchmark_sketch_rnn.py \
	  --output=runs/benchmark_sketch_rnn.json
	$(BIN)/python benchmarks/benchmark_video.py --output=runs/benchmark_video.json
