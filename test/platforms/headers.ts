// The second half of headers.sh: compiles test/peers/abi.c for each platform of
// lib/layouts.ts, with each C library that it has, and compares the values in
// the object file with those of lib/. No part of the library is imported that
// makes calls: with a wrong value these crash, before it could be named.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { abis } from '../../lib/layouts.ts'
import { claimsOf, compare, valuesIn, youngOn } from '../claims.ts'

const USAGE = `Usage: test/platforms/headers.sh
Compares the layouts and constants of lib/ with the C headers of each platform.
Exits 1 if a value differs, and names it. ZIG is the compiler, if not that which
is fetched.`

const FOLDER = '.cache/headers'

/** For each platform: what the compiler calls it, by the name printed. */
const targets: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'linux-x64': {
    'Linux x64, glibc': 'x86_64-linux-gnu',
    'Linux x64, musl': 'x86_64-linux-musl',
  },
  'linux-arm64': {
    'Linux arm64, glibc': 'aarch64-linux-gnu',
    'Linux arm64, musl': 'aarch64-linux-musl',
  },
  'linux-arm': {
    'Linux arm, glibc': 'arm-linux-gnueabihf',
    'Linux arm, musl': 'arm-linux-musleabihf',
  },
  'darwin-x64': { 'macOS x64': 'x86_64-macos' },
  'darwin-arm64': { 'macOS arm64': 'aarch64-macos' },
  'freebsd-x64': { 'FreeBSD x64': 'x86_64-freebsd' },
  'freebsd-arm64': { 'FreeBSD arm64': 'aarch64-freebsd' },
}

readCommandLine()
const zig = process.env.ZIG ?? join(FOLDER, 'zig')

let bad = 0
for (const platform of Object.keys(abis)) {
  const all = Object.entries(targets[platform] ?? {})
  if (all.length === 0) fail(`Expected a target for ${platform}`)
  for (const [name, target] of all) bad += check(platform, name, target)
}
if (bad > 0) fail(`Expected all values to agree, got ${bad} that differ`)

function check(platform: string, name: string, target: string): number {
  const [system = ''] = platform.split('-')
  if (!hasHeaders(target)) fail(`${name}: Expected headers, got none`)
  const object = join(FOLDER, `${target}.o`)
  const source = ['-Wall', '-Werror', '-c', 'test/peers/abi.c']
  const { status, stderr } = compile(target, [...source, '-o', object])
  if (status !== 0) {
    process.stderr.write(stderr)
    fail(`${name}: Expected abi.c to compile`)
  }

  const headers = valuesIn(readFileSync(object))
  const { same, lacking, differences } = compare(
    claimsOf(platform),
    headers,
    youngOn(system),
  )
  for (const line of differences) console.log(`${name}: ${line}`)
  const macros = same.filter((value) => value.endsWith(')')).length
  const absent = lacking.map((value) => `; these headers have no ${value}`)
  console.log(
    `${name}: ${same.length - macros} values agree, and ${macros} results of ` +
      `the CMSG_ macros${absent.join('')}`,
  )
  return differences.length
}

function hasHeaders(target: string): boolean {
  // Preprocessing alone: zig takes no other program from standard input.
  const program = '#include <sys/socket.h>\n'
  const args = ['-E', '-x', 'c', '-', '-o', join(FOLDER, 'probe.i')]
  return compile(target, args, program).status === 0
}

function compile(target: string, args: readonly string[], input = '') {
  const options = { encoding: 'utf8', input } as const
  const done = spawnSync(zig, ['cc', '-target', target, ...args], options)
  if (done.error)
    fail(`Expected Zig's compiler as ${zig}: ${done.error.message}`)
  return done
}

function readCommandLine(): void {
  try {
    const help = { type: 'boolean', short: 'h' } as const
    if (!parseArgs({ options: { help } }).values.help) return
    console.log(USAGE)
    process.exit(0)
  } catch (error) {
    console.error(
      `headers.sh: ${error instanceof Error ? error.message : error}\n${USAGE}`,
    )
    process.exit(2)
  }
}

function fail(reason: string): never {
  console.error(`headers.sh: ${reason}`)
  process.exit(1)
}
