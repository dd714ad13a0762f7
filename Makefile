# A menu, not a build system: nothing is compiled.

.DEFAULT_GOAL := all
.PHONY: all help server client demo examples gotchas check test test-nodes \
  test-arm64 test-musl test-headers bench bench-takeover bench-idle soak \
  faults plot pictures pack fmt clean

run := node --import tsx
# No package here needs its install script, esbuild's merely saves some time.
install := npm ci --ignore-scripts --no-audit --no-fund

all: node_modules/.run ## install what running needs

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

check: node_modules/.dev ## types, lint, format
	npm run --silent check

test: node_modules/.dev examples/dbus/node_modules ## check, then all tests
	npm test --silent

test-nodes test-arm64 test-musl: node_modules/.dev ## the tests, elsewhere
	test/platforms/$(@:test-%=%).sh

test-headers: node_modules/.dev ## the layouts, and what C headers say
	@test/platforms/headers.sh

bench: all ## beside every alternative
	@$(run) bench/run.ts --json bench/results.json

bench-takeover bench-idle: bench/node_modules ## the two examples, under load
	@$(run) bench/$(@:bench-%=%).ts

plot: all ## bench/results.svg, from what bench left
	@$(run) bench/plot.ts

pictures: all ## every picture that is not drawn by hand (tmux, weston)
	@$(run) test/pictures.ts

soak: all ## 20 minutes: messages, fuzzing, faults
	@$(run) bench/soak.ts

faults: all ## system calls fail in every program, an hour (strace)
	@$(run) test/faults.ts

pack: node_modules/.dev ## the package, as a tarball in dist/
	npm pack --pack-destination dist

fmt: node_modules/.dev ## format, and mend what lint can
	npx biome check --write

clean: ## remove what was installed
	rm -rf node_modules bench/node_modules examples/dbus/node_modules dist .tap .cache

bench/node_modules examples/dbus/node_modules: | all
	cd $(@D) && npm ci --no-audit --no-fund

node_modules/.run: package-lock.json
	$(install) --omit=dev
	@touch $@

node_modules/.dev: package-lock.json
	$(install)
	@touch $@ node_modules/.run
