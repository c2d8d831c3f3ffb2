# make demo   sets everything up, trains on the demonstrations that ship, scores the policy
# make test   sets everything up, checks style and types, runs the tests, builds the documentation
# make docs   builds the documentation: docs/_build/index.html
#
# To use a torch of your own (CPU only, another CUDA), install it before the first `make`:
#     python3 -m venv .venv && .venv/bin/pip install torch==...
VENV   ?= .venv
TORCH  ?= torch==2.15.0
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c \
	"import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) and print('$(p)')" 2>/dev/null)))
# Checks that run side by side; each takes a core and about 1 GB.
JOBS   ?= 2
RUN    := $(VENV)/bin/python -m

.PHONY: setup demo test docs linkcheck lint style types chromium constraints clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt overrides.txt
	@test -n "$(PYTHON)" || { echo "setup: Python 3.11, 3.12 or 3.13 is needed and none was found; install one or name it: make PYTHON=/path/to/python" >&2; exit 2; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "setup: $(PYTHON) cannot make a virtual environment; on Debian install the package python3-venv" >&2; exit 2; }
	@$(RUN) uv --version >/dev/null 2>&1 || $(RUN) pip install --quiet "$$(grep '^uv==' constraints.txt)"
	@$(RUN) uv pip install --quiet --python $(VENV)/bin/python "$$($(VENV)/bin/python -c 'import torch' 2>/dev/null && echo 'torch>=2.6' || echo '$(TORCH)')"
	@$(RUN) uv pip install --quiet --python $(VENV)/bin/python --constraints constraints.txt --overrides overrides.txt --editable ".[all,dev]"
	@touch $@
	@echo "setup: ready in $(VENV)"

demo: setup
	$(VENV)/bin/policy-accel demo

# Each folder of tests has a process of its own, which loads what its tests need and gives its memory back at the end;
# folders that load the same share one, since loading takes seconds. The long ones come first. What loads MuJoCo takes
# most memory: the two that do are apart, and one of them has no torch.
CORE   := acceleration diffusion training ranks
NETS   := models cuda
TOOLS  := benchmark commands diagnosis docs doctor
RUNS   := comparison open_loop report sweep time_to_score tuning
PARTS  := core nets tools runs $(filter-out support __pycache__ $(CORE) $(NETS) $(TOOLS) $(RUNS),$(notdir $(patsubst %/,%,$(wildcard tests/*/))))
FIRST  := core simulators tools policy nets images runs data robots
CHECKS := style $(patsubst %,tests-%,$(FIRST) $(filter-out $(FIRST),$(PARTS))) docs types
ROBOTS := tests/envs/test_robomimic_interop.py tests/envs/test_robosuite_tasks.py tests/policy/test_robot_tasks.py
SIMULATORS := $(filter-out $(ROBOTS),$(wildcard tests/envs/test_robosuite_*.py)) tests/evaluation/test_frames_wanted.py

# Tests start many processes, each of which would compile every module again where this is set.
test: export PYTHONDONTWRITEBYTECODE =
# Large blocks go back to the system as soon as they are freed.
test: export MALLOC_MMAP_THRESHOLD_ = 1000000
test: setup
	@$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(CHECKS)
	@echo "test: style, types, documentation and all tests are as they should be"

tests-simulators: SELECTED = $(SIMULATORS)
tests-robots: SELECTED = $(ROBOTS)
tests-core: SELECTED = $(CORE:%=tests/%)
tests-nets: SELECTED = $(NETS:%=tests/%)
tests-runs: SELECTED = $(RUNS:%=tests/%)
tests-tools: SELECTED = $(TOOLS:%=tests/%) $(wildcard tests/test_*.py)
tests-envs tests-evaluation tests-policy: SELECTED = tests/$* $(addprefix --ignore=,$(ROBOTS) $(SIMULATORS))
tests-%: setup
	@echo "$@"
	@$(RUN) pytest --quiet $(or $(SELECTED),tests/$*)

# The tests of reports look at them in a real browser.
tests-report tests-runs: chromium
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq >/dev/null && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		{ echo "tests: no chromium was found; install Debian's package chromium, or Google Chrome" >&2; exit 2; }

# Everything is read anew each time (-E): a page that has not changed would not repeat its warnings.
SPHINX := $(RUN) sphinx --fail-on-warning --keep-going --fresh-env --quiet
docs: setup
	@echo "docs"
	@$(SPHINX) --builder html docs docs/_build

# Asks every server that the pages link to, so it needs the network and is no part of `make test`.
linkcheck: setup
	@$(SPHINX) --builder linkcheck docs docs/_build/linkcheck

lint: style types

style: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: setup
	$(RUN) mypy policy_accel envs

# Pins every dependency but torch and its CUDA packages, so that a torch that is there already can stay.
constraints: $(VENV)/.ready
	$(RUN) uv pip compile --universal --no-header --no-annotate --python-version 3.11 --overrides overrides.txt \
		--extra all --extra dev pyproject.toml | grep -viE '^(torch|triton|nvidia-|cuda-)' > constraints.new
	printf 'uv==%s\n' "$$($(RUN) uv --version | cut -d' ' -f2)" >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info
