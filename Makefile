# A menu, not a build system: nothing is compiled.

.DEFAULT_GOAL := all
.PHONY: all server client demo examples test fmt clean

run := node --import tsx

all: node_modules/.run ## install what running needs

server client: all ## start one of the two: make server, make client
	@$(run) $@.ts

demo: all ## both sides at once, labelled
	@$(run) test/demo.ts

examples: all ## every example once, labelled
	@$(run) test/examples.ts

test: node_modules/.dev ## types, lint, format, tests with coverage
	npx tsc --noEmit
	npx biome ci
	npx tap

fmt: node_modules/.dev
	npx biome check --write

clean:
	rm -rf node_modules .tap .cache

node_modules/.run: package-lock.json
	npm ci --omit=dev --no-audit --no-fund
	@touch $@

node_modules/.dev: package-lock.json
	npm ci --no-audit --no-fund
	@touch $@ node_modules/.run
