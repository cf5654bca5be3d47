# Everything from nothing: Python 3.11 or 3.12 and make are all it takes.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
RUN = runs/quickstart

.PHONY: train test slow check results lock .venv peers peers-test peers-lock onnx onnx-test onnx-lock \
	site site-lock mbirjax nnunet scico

train: .venv
	.venv/bin/python train.py --config=configs/quickstart.py --workdir=$(RUN)

test: .venv
	.venv/bin/python -m pytest

slow: .venv
	.venv/bin/python -m pytest -m slow --dist=load

results: .venv  # the scores of every config on built-in data, hours
	.venv/bin/python -m benchmarks.scores

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
	uv pip compile pyproject.toml --extra test --extra build --extra dicom --extra video --extra serve --python-version 3.11 --universal \
		--generate-hashes --no-header -o requirements.lock

site: .docs/.done  # the documentation as pages, in site/
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict

.docs/.done: docs/requirements.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; name one: make site PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .docs
	.docs/bin/python -m pip install --quiet --no-deps --require-hashes -r docs/requirements.lock
	@touch $@

site-lock:  # needs uv
	uv pip compile docs/requirements.in --python-version 3.11 --universal --generate-hashes --no-header \
		-o docs/requirements.lock

peers: .peers/.done

.peers/.done: benchmarks/peers.in benchmarks/peers.lock benchmarks/originals.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; name one: make peers PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --no-deps --require-hashes -r benchmarks/peers.lock
	.peers/bin/python -m pip install --quiet --constraint benchmarks/peers.in torch
	.peers/bin/python -m pip install --quiet --no-deps --require-hashes -r benchmarks/originals.lock
	@touch $@

peers-test: .venv peers
	MEDJAX_PEER_PYTHON=.peers/bin/python .venv/bin/python -m pytest tests/test_peers.py tests/test_published.py tests/test_originals.py \
		tests/test_budget_environments.py tests/test_equal_budget.py tests/test_peer_suites.py

onnx: .onnx/.done  # .venv, and what `medjax.export --formats=onnx` needs beside it

.onnx/.done: .venv/.done requirements-onnx.lock
	.venv/bin/python -m venv --without-pip .onnx
	.venv/bin/python -m pip --python .onnx/bin/python install --quiet --no-deps --require-hashes -r requirements-onnx.lock
	.venv/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$(.onnx/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth
	@touch $@

onnx-test: onnx
	.onnx/bin/python -m pytest -m "" tests/test_onnx.py

onnx-lock:  # needs uv
	uv pip compile requirements-onnx.in --no-deps --python-version 3.11 --universal --generate-hashes --no-header \
		-o requirements-onnx.lock

# Peers that need an environment of their own: `make scico`.
PEERS = mbirjax nnunet scico

$(PEERS): %: .%/.done

$(PEERS:%=.%/.done): .%/.done: benchmarks/%.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; name one: make $* PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .$*
	.$*/bin/python -m pip install --quiet --no-deps --require-hashes -r benchmarks/$*.lock
	if grep -q ^torch benchmarks/$*.in; then .$*/bin/python -m pip install --quiet --constraint benchmarks/$*.in torch; fi
	@touch $@

peers-lock-%:  # needs uv
	printf '%s\n' $(CUDA) | uv pip compile benchmarks/$*.in --python-version 3.11 --universal --generate-hashes \
		--no-header --no-emit-package torch --excludes /dev/stdin -o benchmarks/$*.lock

# What the builds of torch for GPUs depend on.
CUDA = cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton

peers-lock:  # needs uv
	printf '%s\n' $(CUDA) | uv pip compile benchmarks/peers.in --python-version 3.11 --universal --generate-hashes \
		--no-header --no-emit-package torch --excludes /dev/stdin -o benchmarks/peers.lock
	uv pip compile benchmarks/originals.in --no-deps --python-version 3.11 --universal --generate-hashes --no-header \
		-o benchmarks/originals.lock
