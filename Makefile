# `make demo` shows StreamFuse doing its job, `make test` passes its tests. Both set themselves up in .venv; neither needs root.

VENV := .venv
RECORDS := out/predictions.jsonl
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install $(shell test -t 1 || echo --quiet) -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

BENCHMARKS := end_to_end scaling avt120 decoding encoders cached engines training evaluation xor kafka_ingest kafka_latency kafka_delivery kafka_quix kafka_recovery kafka_replicas

KAFKA_VERSION := 4.2.1
KAFKA := kafka_2.13-$(KAFKA_VERSION)
KAFKA_URL := https://archive.apache.org/dist/kafka/$(KAFKA_VERSION)/$(KAFKA).tgz
KAFKA_SHA512 := f643e31266268e920aa98ead9a061026c98dac2886932ad468565ba59bcb7fb4f98a4c4f62727367e1bd87515f3b016e6f6ccccad8b12bdef8b091b0fb577170
ifneq ($(wildcard .kafka/$(KAFKA)/bin),)
export STREAMFUSE_KAFKA_HOME ?= $(CURDIR)/.kafka/$(KAFKA)
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint bench kafka clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.core ## watch it work: a simulated room, or CLIP=my.mp4; more options in ARGS
	@rm -f $(RECORDS)
	@$(VENV)/bin/streamfuse demo $(if $(CLIP),"$(CLIP)") --out $(RECORDS) $(ARGS)

test: $(VENV)/.dev ## run the tests that this machine can run, two files at a time; pytest options in ARGS
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy
	@status=0; $(VENV)/bin/ruff check . || status=1; $(VENV)/bin/ruff format --check . || status=1; $(VENV)/bin/mypy || status=1; exit $$status

bench: $(VENV)/.bench ## print the benchmarks' figures, beside Bytewax, ROS and Quix Streams where they are installed
	@for name in $(BENCHMARKS); do $(VENV)/bin/python -m tests.benchmarks.$$name $(ARGS) || exit; done

kafka: .kafka/$(KAFKA)/bin ## fetch Apache Kafka, for the tests that need a real one (130 MB; needs Java 17)

clean: ## remove what these commands made
	rm -rf $(VENV) out .kafka .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

# --- set-up ---------------------------------------------------------------------------------------------------------------------------

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing StreamFuse into $(VENV): some minutes the first time, most of it for torch."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing StreamFuse and its test tools into $(VENV): some minutes the first time, most of it for torch."
	@$(INSTALL) -e '.[dev,fast,hf,onnx,train]'
	@touch $(VENV)/.core $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "Installing Bytewax and Quix Streams into $(VENV), to compare with."
	@$(PIP) install --quiet -c constraints.txt 'bytewax>=0.21,<0.22' || \
		echo "Bytewax can't be installed for this Python; the benchmarks go on without it."
	@$(PIP) install --quiet --upgrade --target $(VENV)/quix 'quixstreams>=3.28,<4' || \
		echo "Quix Streams can't be installed for this Python; the benchmarks go on without it."
	@touch $@

# Debian and Ubuntu ship Python without ensurepip. Their archive still has pip as a wheel that anybody may download, so root is not needed.
$(VENV)/bin/pip:
	@if [ -z "$(PYTHON)" ]; then \
		echo "StreamFuse needs Python 3.11 or newer, found $$(python3 --version 2>&1 | tail -n 1); install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@echo "Creating $(VENV) with $$($(PYTHON) --version)."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	|| { rm -rf $(VENV); uv venv --quiet --seed --python $(PYTHON) $(VENV) 2>/dev/null; } \
	|| { rm -rf $(VENV); $(PYTHON) -m virtualenv --quiet $(VENV) 2>/dev/null; } \
	|| { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) 2>/dev/null && { \
		$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip 2>/dev/null \
		|| (cd $(VENV) && apt-get download -qq python3-pip-whl && dpkg-deb -x python3-pip-whl_*.deb wheels && \
			PYTHONPATH=$$(echo wheels/usr/share/python-wheels/pip-*.whl) bin/python -m pip install --quiet pip && \
			rm -r wheels python3-pip-whl_*.deb) 2>/dev/null; }; } \
	|| { rm -rf $(VENV); \
		echo "Can't create $(VENV): this Python has neither ensurepip nor pip; install one of them (Debian, Ubuntu: apt install python3-venv)" >&2; \
		exit 1; }

.kafka/$(KAFKA)/bin:
	@mkdir -p .kafka
	@echo "Fetching Apache Kafka $(KAFKA_VERSION) from $(KAFKA_URL)"
	@python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$(KAFKA_URL)" .kafka/$(KAFKA).tgz
	@echo "$(KAFKA_SHA512)  .kafka/$(KAFKA).tgz" | sha512sum --check --quiet || { rm .kafka/$(KAFKA).tgz; \
		echo "What came is not Apache Kafka $(KAFKA_VERSION): its SHA-512 differs from the one in the Makefile. It was removed; try again." >&2; exit 1; }
	@tar -xzf .kafka/$(KAFKA).tgz -C .kafka && rm .kafka/$(KAFKA).tgz
	@echo "Apache Kafka $(KAFKA_VERSION) is in .kafka; make test now runs the tests that need it."
