# Everything from nothing: Python 3.11 or 3.12 and make are all it takes.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
RUN = runs/quickstart

.PHONY: train test slow check lock .venv

train: .venv
	.venv/bin/python train.py --config=configs/quickstart.py --workdir=$(RUN)

test: .venv
	.venv/bin/python -m pytest

slow: .venv
	.venv/bin/python -m pytest -m slow --dist=load

check: .venv
	.venv/bin/ruff check .
	.venv/bin/mypy

.venv: .venv/.done

.venv/.done: requirements.lock pyproject.toml setup.py $(wildcard medjax/native/*.cc)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

lock:  # needs uv
	uv pip compile pyproject.toml --extra test --extra build --python-version 3.11 --universal --generate-hashes \
		--no-header -o requirements.lock
