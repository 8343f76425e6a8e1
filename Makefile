# Flows in: this checkout, on a bare Debian. Flows out: servers to play with, test results, an installed extension.

EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'$$/\1/p" extension/deal_sync.control)
SCRIPT = extension/deal_sync--$(EXTVERSION).sql
PARTS = $(foreach folder,tables functions last,sql/$(folder) $(sort $(wildcard sql/$(folder)/*.sql)))

# From the version before: before and after sql/functions stands what the folder says, a part of which is generated.
UPGRADE = extension/upgrades/$(notdir $(wildcard extension/upgrades/*--$(EXTVERSION)))
UPGRADE_SCRIPT = $(UPGRADE:extension/upgrades/%=extension/deal_sync--%.sql)
BY_HAND = $(wildcard $(UPGRADE)/*_by_hand.sql)
UPGRADE_PARTS = $(foreach parts,$(UPGRADE)/[12]_*.sql sql/functions/*.sql $(UPGRADE)/[34]_*.sql,$(sort $(wildcard $(parts))))

# Only the system's Python will do: it is the one that PL/Python embeds.
PYTHON3 = /usr/bin/python3
ENVIRONMENT = PYTHONPATH=tests $(PYTHON3) -m environment
STATE = $(shell $(ENVIRONMENT) path)
DEV = $(STATE)/dev/bin
IN_DEV = PYTHONPATH=tests PATH=$(DEV):$$PATH $(DEV)/python -m environment

LINTERS = lint-python lint-sqlfluff lint-squawk lint-pgspot lint-shell lint-plpgsql lint-docs

.DEFAULT_GOAL = help
.PHONY: help setup up psql down demo test bench soak docs messages upgrade lint $(LINTERS) clean distclean install-python

help: ## this list
	@sed -n 's/^#* *\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

$(PYTHON3):
	@test "$$(id -u)" = 0 || { echo 'deal_sync: as root: apt-get install python3 python3-venv'; exit 1; }
	@apt-get -qq update && apt-get -qq install --no-install-recommends python3 >/dev/null

setup: $(PYTHON3) ## install what is missing: packages, PostgreSQL tree, Neo4j, Python, the extension
	@$(ENVIRONMENT) setup

up: setup ## start the playground: PostgreSQL and Neo4j with the demo graph, ready for sync_deals
	@$(IN_DEV) up

psql: ## open psql on the playground; ARGS="-c 'SELECT …'" for one statement
	@$(ENVIRONMENT) psql $(ARGS)

down: ## stop the playground, keep its data
	@$(ENVIRONMENT) down

demo: up ## show a sync of two tenants, step by step
	@STATE=$(STATE) PYTHON=$(DEV)/python bash tests/demo/demo.sh

test: setup ## run the whole test suite; ARGS="-k name" for a part
	@$(DEV)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist worksteal)

bench: setup ## measure a load; ARGS="--scale", "--beside", "--tenants": how its cost grows; "--help"
	@PYTHONPATH=tests:fdw $(DEV)/python -m bench.bench $(ARGS)

soak: setup ## sync by pg_cron while the graph changes and servers fail, compare; ARGS="--minutes 20 --tenants 3"
	@PYTHONPATH=tests:fdw $(DEV)/python -m soak.soak $(ARGS)

docs: setup ## build the documentation as a site, its reference anew from the catalog
	@$(IN_DEV) reference
	@$(MKDOCS)
	@echo $(STATE)/site/index.html

MKDOCS = NO_MKDOCS_2_WARNING=1 $(DEV)/mkdocs build --strict --site-dir $(STATE)/site

messages: ## list every message, hint and comment, to be read apart from the code
	@$(PYTHON3) tests/lint/messages.py

lint: $(LINTERS) ## all linters; exclusions and their reasons are in pyproject.toml and here

lint-python: setup
	@$(DEV)/ruff check
	@$(DEV)/ruff format --check
	@$(DEV)/mypy
	@PYTHONPATH=fdw $(DEV)/lint-imports

# sqlfluff cannot parse CREATE FOREIGN DATA WRAPPER, so that statement has a file of its own, which squawk reads. It reads
# the templates' own settings in their folder only, and does not look at the lines of templates and function bodies.
lint-sqlfluff: setup
	@$(SQLFLUFF) $(filter-out %_wrapper.sql,$(filter %.sql,$(PARTS))) $(BY_HAND) sql/migration fdw/neo4j_deals/doctor/sql
	@cd fdw/neo4j_deals/sync/sql && $(SQLFLUFF) .
	@! git ls-files '*.sql' | grep -v -e ^extension/deal_sync-- -e ^tests/golden/ | LC_ALL=C.UTF-8 xargs grep -nE '.{121}'

SQLFLUFF = $(DEV)/sqlfluff lint -q --disable-progress-bar

# squawk and pgspot read no pyproject.toml, so their exclusions stand here.
# squawk is a syntax gate: these rules are for migrations of live tables, not for an extension's script, which is one
# transaction on new objects. What is generated of an upgrade drops and moves on purpose, and a test runs it.
SQUAWK_EXCLUDE = require-lock-timeout,require-statement-timeout,prefer-robust-stmts,$\
	require-concurrent-index-creation,renaming-column,ban-drop-column
lint-squawk: setup
	@sed 's/@extschema@/public/g' $(SCRIPT) $(BY_HAND) >$(STATE)/script.sql
	@$(DEV)/squawk --exclude=$(SQUAWK_EXCLUDE) $(STATE)/script.sql

# PS017 wants qualified names where a function's own search_path already decides; PL/Python bodies are not SQL; its
# parser of PL/pgSQL does not know the fields of composite types, and plpgsql_check reads those bodies. A procedure that
# commits cannot have a SET clause; one expression that needs its caller's settings must have none.
WITHOUT_PATH = \
	--proc-without-search-path '_deal_sync.raise_again(error _deal_sync.error)' \
	--proc-without-search-path '_deal_sync.caller()' \
	--proc-without-search-path '_deal_sync.begin_transaction(messages text)' \
	--proc-without-search-path '_deal_sync.sync_next(tenant uuid,mode text,reconcile boolean,messages text,caller _deal_sync.caller,INOUT wrong text)' \
	--proc-without-search-path '_deal_sync.check_tenant(function text,tenant uuid)' \
	--proc-without-search-path 'extschema.sync_deals(tenant uuid,mode text,dry_run boolean,strict boolean)' \
	--proc-without-search-path 'deal_sync.replay(tenant uuid,graph_ids text[])' \
	--proc-without-search-path 'deal_sync.sync_all(mode text,time_limit interval,quiet boolean,tenant uuid,reconcile boolean,shared boolean)' \
	--proc-without-search-path 'deal_sync.nightly(tenant uuid)' \
	--proc-without-search-path 'deal_sync.backfill(tenant uuid,batch_size integer)'
# It warns of CREATE OR REPLACE in a schema that the script has not created, the extension's: PostgreSQL lets a script
# replace nothing but members of its extension.
lint-pgspot: setup
	@echo 'CREATE SCHEMA extschema; CREATE SCHEMA deal_sync;' >$(STATE)/extschema.sql
	@for script in $(SCRIPT) $(UPGRADE_SCRIPT); do \
		$(DEV)/pgspot --append $(WITHOUT_PATH) --ignore PS017 --ignore-lang plpython3u --no-plpgsql \
			$(STATE)/extschema.sql $$script || exit; done

lint-shell: setup
	@shellcheck .ci/run $$(git ls-files '*.sh')
	@! test -e Dockerfile.postgres || $(DEV)/hadolint Dockerfile.postgres

lint-plpgsql: setup
	@$(IN_DEV) check-plpgsql

lint-docs: setup
	@$(IN_DEV) check-citations
	@$(MKDOCS)

# A script says what loads it. The search_path keeps a trap in the target schema from being called by a default or a CHECK.
define script
@{ printf '%s\n' '\echo Use "$(1)" to load this file. \quit' 'SET LOCAL search_path = pg_catalog, pg_temp;'; \
	cat $(filter %.sql,$^); } >$@
endef

# The directories are prerequisites because a file may also go.
$(SCRIPT): $(PARTS) Makefile
	$(call script,CREATE EXTENSION deal_sync)

$(UPGRADE_SCRIPT): $(UPGRADE_PARTS) $(UPGRADE) sql/functions Makefile
	$(call script,ALTER EXTENSION deal_sync UPDATE)

upgrade: setup ## write anew what an update from the version before moves, drops and revokes
	@$(IN_DEV) upgrade

install-python: ## install the Python package for the server: PYTHON=/path/to/venv/bin/python
	$(or $(PYTHON),$(error which Python? make install-python PYTHON=/path/to/venv/bin/python)) -m pip install .

# install: ## install the extension into a PostgreSQL: PG_CONFIG=/path/to/pg_config
# PGXS has a `clean` of its own, so it is read for these goals only.
ifneq ($(filter install uninstall,$(MAKECMDGOALS)),)
EXTENSION = extension/deal_sync
DATA_built = $(SCRIPT) $(UPGRADE_SCRIPT)
DATA = $(filter-out $(DATA_built),$(wildcard extension/deal_sync--*.sql))
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error "$(PG_CONFIG)" does not work; install postgresql-client-NN (or postgresql-server-dev-NN) or say PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)
else
clean: ## stop all servers of this checkout and remove their data
	@$(ENVIRONMENT) clean
	@rm -f $(SCRIPT) $(UPGRADE_SCRIPT)

distclean: clean ## remove everything outside the checkout, too
	@$(ENVIRONMENT) distclean
endif
