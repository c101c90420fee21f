# The chores of a developer. `make check` is what must pass before each commit.
PY = .venv/bin/python
.PHONY: help check lint metrics test lock docs
help:            ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed 's/: *##/\t/'
check: lint test ## everything that must hold before a commit
lint: .venv/installed-requirements-dev.lock ## ruff, mypy --strict, import contracts, unused code, figures
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m tools.dead_code
	$(PY) -m tools.metrics >/dev/null || $(PY) -m tools.metrics --where
metrics:         ## lengths, types, old words, depth of imports; make metrics WHERE=--where lists each place
	$(PY) -m tools.metrics $(WHERE)
test:            ## every test
	./fleet test
docs: .venv/installed-requirements-dev.lock ## write the pages that are made from the code
	PYTHONPATH=. $(PY) -m app.cli docs
lock:            ## resolve the requirements anew, with hashes
	$(PY) -m pip install --quiet 'uv>=0.9'
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11 \
	  --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11 \
	  --custom-compile-command 'make lock' --extra dev --output-file requirements-dev.lock pyproject.toml
.venv/installed-requirements-dev.lock: requirements-dev.lock
	./fleet test --version >/dev/null
