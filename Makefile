# A menu, not a build system: nothing is compiled.

.DEFAULT_GOAL := all
# Two installations must not run at a time.
.NOTPARALLEL:
.PHONY: all help server client demo examples gotchas check test test-nodes \
  test-arm64 test-musl test-arm64-kernel test-headers bench bench-takeover \
  bench-idle soak faults mutants plot pictures docs pack fmt clean

run := node --import tsx
# What npm has in its cache it takes from there: else it would ask the registry
# for each package, and without a network wait for minutes. No package here
# needs its install script, esbuild's merely saves some time.
install := npm ci --prefer-offline --ignore-scripts --no-audit --no-fund
# npm writes this at the end of every installation, whoever has started it.
installed := node_modules/.package-lock.json
dev := node_modules/tap $(installed)
# The test runner, built with the plugins of .taprc. tap would build it by itself,
# but the run that does so goes on with the old one, and takes a minute longer.
runner := .tap/plugins/package.json

all: $(installed) ## install what running needs

help: ## this list
	@awk -F ':.*## ' '/^[a-z].*## / { printf "%-36s %s\n", $$1, $$2 }' Makefile

server client: all ## start one of the two: make server, make client
	@./$@.ts

demo: all ## both sides at once, labelled
	@$(run) test/demo.ts

examples: all examples/dbus/node_modules ## every example once, labelled
	@$(run) test/examples.ts

gotchas: all ## what surprises people, tried on this machine
	@$(run) examples/gotchas/all.ts

check: $(dev) ## types, lint, format
	npm run --silent check

test: $(dev) $(runner) ## check, then all tests; FILE=test/x.test.ts: one file
ifdef FILE
	node_modules/.bin/tap --disable-coverage --allow-empty-coverage $(FILE)
else
	$(MAKE) --no-print-directory examples/dbus/node_modules
	npm test --silent
endif

test-nodes test-arm64 test-musl: $(dev) $(runner) ## the tests, elsewhere
	test/platforms/$(@:test-%=%).sh

test-arm64-kernel: $(dev) ## the tests of lib/ in a virtual machine (QEMU)
	test/platforms/arm64-kernel.sh

test-headers: $(dev) ## the layouts, and what C headers say
	@test/platforms/headers.sh

bench: all ## beside every alternative
	@$(run) bench/run.ts --json bench/results.json

bench-takeover bench-idle: bench/node_modules ## the two examples, under load
	@$(run) bench/$(@:bench-%=%).ts

plot: all ## bench/results.svg, from what bench left
	@$(run) bench/plot.ts

pictures: all ## every picture that is not drawn by hand (tmux, weston)
	@$(run) test/pictures.ts

docs: $(dev) ## what the pages take from the source and from bench
	@$(run) test/readme.ts --write
	@$(run) test/api.ts --write

soak: all ## 20 minutes: messages, fuzzing, faults
	@$(run) bench/soak.ts

faults: all ## system calls fail in every program, an hour (strace)
	@$(run) test/faults.ts

mutants: $(dev) ## faults in lib/: do its tests see them? hours; FILE=lib/x.ts
	@test/mutants/run.sh $(FILE)

pack: $(dev) ## the package, as a tarball in dist/
	npm pack --pack-destination dist

fmt: $(dev) ## format, and mend what lint can
	npx biome check --write

clean: ## remove what was installed
	rm -rf node_modules bench/node_modules examples/dbus/node_modules \
	  test/mutants/node_modules dist .tap .cache

bench/node_modules examples/dbus/node_modules: | all
	cd $(@D) && npm ci --prefer-offline --no-audit --no-fund

# Whoever has the packages for development keeps them.
$(installed): package-lock.json
	$(install) $(if $(wildcard node_modules/tap),,--omit=dev)
	@touch $@

$(runner): .taprc package-lock.json | $(dev)
	node_modules/.bin/tap build
	@touch $@

# Before the rule above: that then finds everything in place.
node_modules/tap:
	$(install)
