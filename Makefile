# `make train` and `make test` are all a newcomer needs; both first make .venv, once.
PYTHON ?= python3
NPROC ?= auto
# Processes that test at a time; where there are more cores, more are faster: make test WORKERS=8
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 .venv/bin/pytest --numprocesses $(WORKERS) --dist loadfile
SHELL := /bin/bash
PARTIAL_FC := .venv/bin/partial-fc

.PHONY: train test quick docs omniglot omniglot_zips bench chaos cluster-test image clean

# A set is there when its train.rec is, which appears last: an interrupted command can be given again.
train: data/synthetic/train/train.rec data/synthetic/heldout/train.rec
	$(PARTIAL_FC) train configs/synthetic.yaml --nproc $(NPROC)

omniglot: omniglot_zips data/omniglot/background/train.rec data/omniglot/evaluation/train.rec
	$(PARTIAL_FC) train configs/omniglot.yaml --nproc $(NPROC)

omniglot_zips:
	@test -n "$(OMNIGLOT)" || { echo "give the folder of the two zips: make omniglot OMNIGLOT=DIR (see README.md)"; exit 2; }

test: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy & types=$$!; $(PYTEST) && wait $$types

# Lint, types and the tests that start no process and train nothing: under a minute on two cores.
quick: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy & types=$$!; $(PYTEST) -m "not processes and not slow and not gpu" && wait $$types

# The site of these pages, with what the sources say of commands, configuration and API: build/docs/index.html.
docs: .venv/installed
	.venv/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs

bench: .venv/installed
	.venv/bin/python -m benchmarks.performance

# Kills a run a hundred times and writes what that cost into docs/chaos.md.
chaos: .venv/installed
	.venv/bin/python -m benchmarks.chaos

# On this machine (Debian, as root), each installing what it needs and leaving nothing: a run under a real Prometheus and
# Alertmanager; two network namespaces that lose ranks and nodes; a real Slurm of two nodes, preempted and at its time
# limit; the image, built, and two containers of it. About 25 minutes.
cluster-test: .venv/installed
	tests/cluster/monitoring.sh
	tests/cluster/namespaces.sh
	tests/cluster/slurm.sh
	tests/cluster/containers.sh

# The image, and beside it what it holds of Python as CycloneDX. BASE and PIP_EXTRA_INDEX_URL: see docker/Dockerfile.
image:
	docker build --file docker/Dockerfile --tag partial-fc $(if $(BASE),--build-arg BASE=$(BASE)) \
		$(if $(PIP_EXTRA_INDEX_URL),--build-arg PIP_EXTRA_INDEX_URL=$(PIP_EXTRA_INDEX_URL)) .
	docker run --rm --entrypoint cat partial-fc /opt/partial-fc/share/sbom.cdx.json > sbom.cdx.json

data/synthetic/train/train.rec: | .venv/installed
	$(PARTIAL_FC) pack synthetic --identities 600 --images 20 --size 40 --out $(@D)

data/synthetic/heldout/train.rec: | .venv/installed
	$(PARTIAL_FC) pack synthetic --identities 150 --images 20 --size 40 --first-identity 600 --out $(@D)

data/omniglot/background/train.rec: | .venv/installed
	$(PARTIAL_FC) pack omniglot "$(OMNIGLOT)/images_background.zip" --out $(@D) --size 40

data/omniglot/evaluation/train.rec: | .venv/installed
	$(PARTIAL_FC) pack omniglot "$(OMNIGLOT)/images_evaluation.zip" --out $(@D) --size 40 --no-rotations

# torch first, and pinned: what comes after must not choose another build of it.
.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt torch
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
