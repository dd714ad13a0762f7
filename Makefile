# A menu, not a build system: nothing is compiled.

.DEFAULT_GOAL := all
.PHONY: all server client demo examples gotchas test test-nodes test-arm64 test-musl \
  bench bench-takeover bench-idle soak plot pack fmt clean

run := node --import tsx

all: node_modules/.run ## install what running needs

server client: all ## start one of the two: make server, make client
	@$(run) $@.ts

demo: all ## both sides at once, labelled
	@$(run) test/demo.ts

examples: all examples/dbus/node_modules ## every example once, labelled
	@$(run) test/examples.ts

gotchas: all ## what surprises people, tried on this machine
	@$(run) examples/gotchas/all.ts

test: node_modules/.dev examples/dbus/node_modules ## types, lint, format, tests with coverage
	npx tsc --noEmit
	npx biome ci
	npx tap

test-nodes test-arm64 test-musl: node_modules/.dev ## the tests, elsewhere
	test/platforms/$(@:test-%=%).sh

bench: all ## beside every alternative
	@$(run) bench/run.ts --json bench/results.json

bench-takeover bench-idle: bench/node_modules ## the two examples, under load
	@$(run) bench/$(@:bench-%=%).ts

plot: all ## bench/results.svg, from what bench left
	@$(run) bench/plot.ts

soak: all ## 10 million messages, memory watched
	@$(run) bench/soak.ts

pack: node_modules/.dev ## the package, as a tarball in dist/
	npm pack --pack-destination dist

fmt: node_modules/.dev
	npx biome check --write

clean:
	rm -rf node_modules bench/node_modules examples/dbus/node_modules dist .tap .cache

bench/node_modules examples/dbus/node_modules: | all
	cd $(@D) && npm ci --no-audit --no-fund

node_modules/.run: package-lock.json
	npm ci --omit=dev --no-audit --no-fund
	@touch $@

node_modules/.dev: package-lock.json
	npm ci --no-audit --no-fund
	@touch $@ node_modules/.run
