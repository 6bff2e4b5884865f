# The project's commands. PYTHON is the interpreter that the environment is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/dagster_home
export DAGSTER_EVENT_BATCH_SIZE ?= 1000
# The tests start hundreds of processes; compiling everything anew in each would double their time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-all test-long test-spark test-s3 coverage mutants lint dev bench lock audit sbom clean

run: $(VENV)/installed  ## Sample files if the lake is an empty folder, all tables, the counts, the report
	@case "$$STEDI_LAKE" in s3://*) ;; *) \
		test -n "$$(find "$${STEDI_LAKE:-lake}"/*/landing -type f 2>/dev/null | head -1)" || $(BIN)/stedi sample;; esac
	$(BIN)/stedi run
	$(BIN)/stedi report

test: $(VENV)/installed lint  ## Lint, types and all tests that are quick: minutes
	$(BIN)/pytest -n auto --dist worksteal -m "not long and not spark"

test-all: test-long test-spark test-s3  ## All that `make test` leaves out

test-long: $(VENV)/installed  ## The tests that take longer: whole runs, histories of a lake, kills, dagster dev
	$(BIN)/pytest -n auto --dist worksteal -m long

test-spark: $(VENV)/installed  ## The tests on Spark, for which there has to be Java 17
	$(BIN)/pytest -n auto --dist loadfile -m spark

test-s3: $(VENV)/installed  ## The tests of both storages over S3: Ceph's, or STEDI_TEST_S3_ENDPOINT
	$(if $(STEDI_TEST_S3_ENDPOINT),,$(BIN)/python -m stedi_assets_tests.s3_server) $(BIN)/pytest -n auto --dist worksteal -m s3

coverage: $(VENV)/installed  ## Whether the tests take the branches of what everything rests on
	$(BIN)/python -m stedi_assets_tests.quality --branches

mutants: $(VENV)/installed  ## Whether the tests notice changes of the code; hours
	$(BIN)/python -m stedi_assets_tests.quality

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy stedi_assets benchmarks

dev: $(VENV)/installed  ## The Dagster UI, with the runs of `make run` in it
	$(BIN)/dagster dev

bench: $(VENV)/installed  ## How fast it is, beside what people would use instead; an hour
	$(BIN)/python -m benchmarks

COMPILE := uv pip compile setup.cfg --universal --python-version 3.11 \
	--generate-hashes --no-strip-extras --no-header --no-annotate --no-emit-index-url

lock:  ## New versions into both lock files, with uv from anywhere on the PATH
	$(COMPILE) --extra bench --extra dev --extra science --extra spark --upgrade --output-file requirements.lock
	$(COMPILE) --extra aws --extra build --constraint requirements.lock --upgrade \
		--output-file deploy/aws/requirements.lock

audit: $(VENV)/installed  ## Whether any locked version has a known vulnerability; asks the index of packages
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.lock
	$(BIN)/pip-audit --require-hashes --disable-pip -r deploy/aws/requirements.lock

sbom: $(VENV)/installed  ## What the image installs, as CycloneDX: sbom.json
	$(BIN)/python deploy/sbom.py deploy/aws/requirements.lock > sbom.json

# The environment: exactly the lock file's packages, and the project itself in place.
$(VENV)/installed: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

clean:  ## Everything that the commands above made, but no landing file
	rm -rf $(VENV) build sbom.json *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .mutants
