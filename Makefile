# `make up` and `make test` need only Python >= 3.11, git and make.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
endif
$(if $(PYTHON),,$(error Python 3.11 or newer is needed))
LOCAL = $(PYTHON) -m deploy.up
BIN = .venv/bin
# Excluded from make test-all; each has its own target.
ALL = not faults and not cluster and not upgrade and not fullstack and not dialect and not pages and not clients

.PHONY: up up-cluster down clean status env check certs setup demo logs psql preview send-test prepare schema fmt lint unit test test-all test-fresh test-faults test-cluster test-upgrade test-fullstack test-clients test-dialect test-pages widget test-widget bench docs lock release cut
.DEFAULT_GOAL = up

# YES=1: `make clean` does not ask. TRY=1: `make env` writes defaults for a trial. PORT_OFFSET=100: raise all ports by 100 from now on.
# HOSTS="a.example.com,10.0.0.1 b.example.com": certificates for TLS (docs/tls.md). NAMES="alerts redis": of these processes. DAYS=365.
# RENEW=1, NEW_AUTHORITY=1, DROP_OLD_AUTHORITY=1: the steps of a rotation. AUTHORITY: the folder of the key that signs.
up up-cluster down clean status env check certs:
	@$(LOCAL) $@

# Seven questions about the company; each answer is tried at once (docs/going-live.md).
setup: check
	@$(BIN)/python -m deploy.up.questions

demo:
	@test -x $(BIN)/python || { echo "make up comes first" >&2; exit 1; }
	@$(BIN)/python -m deploy.demo

logs:
	@$(LOCAL) logs $(SERVICE)

psql:
	@$(LOCAL) psql $(or $(SERVICE),$(error say which: make psql SERVICE=alerts)) $(if $(SQL),"$$SQL")
psql: export SQL := $(SQL)

# Write the follow-ups' mails to files; send them to a colleague.
FOLDER = .local/preview
preview:
	@$(LOCAL) run followups preview $(FOLDER)

send-test:
	@$(LOCAL) send-test $(or $(TO),$(error say to whom: make send-test TO=me@example.com))

prepare:
	@$(LOCAL) prepare

fmt: prepare
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: prepare
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m deploy.lint_migrations

# Unit tests only, in seconds: run them while you write.
unit: prepare
	$(BIN)/pytest tests/unit $(ARGS)

# After a migration: services/*/store/schema.sql and docs/data.md.
schema: prepare
	WRITE=1 $(BIN)/pytest -n 0 tests/integration/common/test_schemas.py

# Tests mostly wait. Each of the JOBS processes has its own servers.
JOBS = 3
# What proves each promise once (docs/promises.md), in minutes; it passes on a busy machine too.
test: prepare
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m quick tests/unit \
		$$(grep -rl --include="test_*.py" "mark[.]quick" tests/integration tests/faults) $(ARGS)

# Every test but those with targets of their own, below.
test-all: lint
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "$(ALL)" $(ARGS)

# make up and make test-all in a bare Debian 13 with Debian's Python; needs root.
test-fresh:
	tests/fresh

test-faults: prepare
	$(BIN)/pytest -n $(JOBS) --dist loadfile tests/faults $(ARGS)

# SEED=7 repeats what seed 7 breaks; LONG=1 takes new seeds for a night. The hosts need root.
test-cluster:
	@$(LOCAL) prepare --cluster
	SEED=$(SEED) LONG=$(LONG) $(BIN)/pytest -m cluster tests/cluster $(ARGS)

# The last tag's code beside today's, under load; at most ten minutes.
test-upgrade: prepare
	timeout 600 $(BIN)/pytest tests/upgrade $(ARGS)

# AGAINST=running: test what runs from this checkout's .env, instead of the tests' own containers.
test-fullstack: prepare
	AGAINST=$(AGAINST) $(BIN)/pytest -m fullstack tests/fullstack $(ARGS)

# SCREENSHOTS=folder keeps screenshots of the pages.
test-pages:
	@$(LOCAL) prepare --browser
	! command -v npm >/dev/null || npm ci --silent --no-audit --no-fund --prefix tests/browsers
	$(BIN)/pytest -n 2 --dist loadfile -m pages tests/pages $(ARGS)

# Generate clients from /openapi.json in Python and TypeScript (needs npm), type-check them and make calls.
test-clients: prepare
	tests/clients/run

# Build the script for web pages into services/gateway/static/widget (needs npm); commit what it writes.
widget:
	cd widget && npm ci --silent --no-audit --no-fund && npm run --silent build

# The committed build is the one that its source makes, byte for byte.
test-widget: widget
	test -z "$$(git status --porcelain services/gateway/static/widget)"

test-dialect: prepare
	$(BIN)/pytest -n $(JOBS) --dist loadfile tests/dialect $(ARGS)

# WHAT is gateway, alerts, consent, followups or chat; default: all. LONG=1 adds parts of many minutes.
bench: prepare
	$(BIN)/python -m bench $(WHAT) $(if $(LONG),--long) $(ARGS)

# The documentation site, in .local/site.
docs: prepare
	requirements/docs

# Everything that a release publishes, into dist/: make cut VERSION=0.2.0 sets the version first. DRY=1: of the checkout as it is.
release: prepare
	VERSION=$(VERSION) DRY=$(DRY) requirements/release

cut:
	VERSION=$(or $(VERSION),$(error say which: make cut VERSION=0.2.0)) requirements/cut

lock:
	requirements/lock
