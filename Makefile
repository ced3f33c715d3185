# Two commands matter: `make demo` shows what edgegen does, `make test` says whether it works.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.edgegen-installed
HTP_VENV ?= .venv-htp
HTP_INSTALLED := $(HTP_VENV)/.edgegen-htp-installed
WEBGPU_VENV ?= .venv-webgpu
WEBGPU_INSTALLED := $(WEBGPU_VENV)/.edgegen-webgpu-installed
CUDA_VENV ?= .venv-cuda
CUDA_INSTALLED := $(CUDA_VENV)/.edgegen-cuda-installed

.PHONY: help setup demo bench-peers bench-sources bench-speculation study test fast slow npu-compile htp htp-setup webgpu webgpu-setup cuda ledger lint ruff mypy pyright format docs clean

help:
	@echo "make demo    export, translate, transcribe and profile real models"
	@echo "make test    every test but the slow ones"
	@echo "make fast    only the tests that need no real weights"
	@echo "make slow    the tests that take minutes"
	@echo "make htp     static graphs on the simulator of Qualcomm's HTP, in $(HTP_VENV)"
	@echo "make webgpu  the WebGPU provider on a software Vulkan, in $(WEBGPU_VENV); docs/simulators.md first"
	@echo "make cuda    every kind of decoder on an NVIDIA GPU, in $(CUDA_VENV)"
	@echo "make npu-compile  static graphs through Intel's NPU compiler under Wine, some minutes"
	@echo "make ledger  every drafter against plain decoding on real models, for hours; resumes"
	@echo "make bench-peers  edgegen beside other engines: hours; WORK=t5 for a part of it"
	@echo "make bench-speculation  what drafts bring on real models, half an hour on a quiet machine"
	@echo "make bench-sources  what kept sources and kept graphs bring, a quarter of an hour"
	@echo "make study   encoder-decoder beside decoder-only into docs/study.md, an hour; resumes"
	@echo "make lint    ruff, mypy and pyright"
	@echo "make format  let ruff rewrite what it can"
	@echo "make docs    write docs/cli.md, docs/families.md and the table of docs/devices.md anew"
	@echo "make setup   the virtual environment in $(VENV); every other target does this first"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[all,bench,dev]'
	@touch $@

demo: setup
	$(RUN) bench/demo.py

test: setup
	$(RUN) -m pytest -m "not slow"

fast: setup
	$(RUN) -m pytest -m "not slow and not real"

bench-peers: setup
	$(RUN) bench/peers $(WORK)

slow: setup
	$(RUN) -m pytest -m slow

htp-setup: $(HTP_INSTALLED)

# Apart from $(VENV), whose device listings then stay those of most machines.
$(HTP_INSTALLED): pyproject.toml constraints.txt
	$(MAKE) setup VENV=$(HTP_VENV)
	$(HTP_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[qnn]'
	@touch $@

htp: htp-setup
	EDGEGEN_HTP=required $(HTP_VENV)/bin/python -m pytest tests/test_htp.py

webgpu-setup: $(WEBGPU_INSTALLED)

# Apart from $(VENV): its wheel is ONNX Runtime itself and takes onnxruntime's place.
$(WEBGPU_INSTALLED): pyproject.toml constraints.txt
	$(MAKE) setup VENV=$(WEBGPU_VENV)
	$(WEBGPU_VENV)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(WEBGPU_VENV)/bin/python -m pip install --quiet --no-deps onnxruntime-webgpu==1.27.0
	@touch $@

webgpu: webgpu-setup
	XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-$$(mktemp -d)} EDGEGEN_WEBGPU=required \
	  $(WEBGPU_VENV)/bin/python -m pytest tests/test_webgpu.py

# Its wheel is ONNX Runtime itself too. CUDA and cuDNN come along as wheels.
$(CUDA_INSTALLED): pyproject.toml constraints.txt
	$(MAKE) setup VENV=$(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(CUDA_VENV)/bin/python -m pip install --quiet 'onnxruntime-gpu[cuda,cudnn]==1.31.1'
	@touch $@

cuda: $(CUDA_INSTALLED)
	EDGEGEN_CUDA=required $(CUDA_VENV)/bin/python -m pytest tests/test_cuda.py

npu-compile: setup
	EDGEGEN_NPU=required $(RUN) -m pytest tests/test_npu_compile.py

ledger: setup
	$(RUN) bench/ledger.py

bench-speculation: setup
	$(RUN) bench/speculation.py

bench-sources: setup
	$(RUN) bench/sources.py

study: setup
	$(RUN) -m edgegen study encoder-decoder -t 2 -o docs/study.json --report docs/study.md

lint: ruff mypy pyright

ruff: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# Through the links in src/edgegen; pyright reads the mapped folders in their own place.
mypy: setup
	$(RUN) -m mypy
	$(RUN) -m mypy tests bench docs

pyright: setup
	$(RUN) -m pyright --pythonpath $(RUN)

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: setup
	$(RUN) docs/generate_cli.py
	$(RUN) docs/generate_families.py
	$(RUN) docs/generate_devices.py

clean:
	rm -rf $(VENV) $(HTP_VENV) $(WEBGPU_VENV) $(CUDA_VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
