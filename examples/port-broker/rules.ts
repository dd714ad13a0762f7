// Who may have which port: a JSON file, an array of rules such as
//
//    { "user": "nobody",              or "uid": 65534, or "gid": 65534
//      "ports": [80, "8000-8099"],
//      "addresses": ["127.0.0.1"],    those to bind to, in digits
//      "protocol": "udp" }            "tcp" unless given
//
// What no rule allows is refused. A file with a mistake in it is refused as a
// whole: a misspelt "addresses" that went unnoticed would open a port to
// others. So is a file that another user than root or the broker's own can
// write.
//
// A socket on :: takes connections over IPv4 as well (ipv6(7), IPV6_V6ONLY). So
// :: is allowed only by a rule whose addresses are :: and 0.0.0.0, both.
//
// Simplification: "gid" is the client's primary group. The kernel knows all its
// groups (SO_PEERGROUPS in unix(7)), this library does not ask.

import { execFileSync } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { isIP, SocketAddress } from 'node:net'

import type { Credentials, Protocol } from '../../lib/index.ts'
import { messageOf } from '../../lib/script/cli.ts'

export type Request = {
  readonly protocol: Protocol
  readonly address: string
  readonly port: number
}

export type Rule = {
  readonly who: { readonly uid: number } | { readonly gid: number }
  readonly protocol: Protocol
  readonly addresses: readonly string[]
  /** First and last. */
  readonly ports: readonly (readonly [number, number])[]
}

type Fields = Readonly<Record<string, unknown>>

const FIELDS = ['user', 'uid', 'gid', 'ports', 'addresses', 'protocol']

/** The rules in a file. Throws, saying where, if it is anything else. */
export function readRules(path: string): Rule[] {
  const rules: unknown = JSON.parse(readTrusted(path))
  return list('the rules', rules).map((rule, index) => {
    try {
      return parseRule(fieldsOf(rule))
    } catch (error) {
      throw new Error(`rule ${index + 1}: ${messageOf(error)}`)
    }
  })
}

function readTrusted(path: string): string {
  const fd = openSync(path, 'r')
  try {
    const { mode, uid } = fstatSync(fd)
    if ((mode & 0o022) === 0 && (uid === 0 || uid === process.geteuid?.()))
      return readFileSync(fd, 'utf8')
    throw new Error(
      "Expected a file that only root or this server's user can write, " +
        `got one of uid ${uid} with mode ${(mode & 0o7777).toString(8)}`,
    )
  } finally {
    closeSync(fd)
  }
}

/** All addresses that a socket takes connections on which is bound to one. */
export function boundBy(address: string): string[] {
  return address === '::' ? ['::', '0.0.0.0'] : [address]
}

export function allows(rule: Rule, who: Credentials, what: Request): boolean {
  const { protocol, address, port } = what
  return (
    ('uid' in rule.who ? rule.who.uid === who.uid : rule.who.gid === who.gid) &&
    rule.protocol === protocol &&
    boundBy(address).every((each) => rule.addresses.includes(each)) &&
    rule.ports.some(([first, last]) => first <= port && port <= last)
  )
}

/** A client's words as a request. Throws if they make none. */
export function parseRequest({ protocol, address, port }: Fields): Request {
  const [first, last] = parsePorts(port)
  if (first !== last) throw expected('one port', port)
  return {
    protocol: parseProtocol(protocol),
    address: parseAddress(address),
    port: first,
  }
}

function parseRule(rule: Fields): Rule {
  for (const field of Object.keys(rule)) {
    if (!FIELDS.includes(field)) throw expected(FIELDS.join(', '), field)
  }
  return {
    who: parseWho(rule),
    protocol: parseProtocol(rule.protocol),
    addresses: list('"addresses"', rule.addresses).map(parseAddress),
    ports: list('"ports"', rule.ports).map(parsePorts),
  }
}

function parseWho(rule: Fields): Rule['who'] {
  const { user, uid, gid } = rule
  const given = [user, uid, gid].filter((value) => value !== undefined)
  if (given.length !== 1)
    throw new Error('Expected one of "user", "uid" and "gid"')
  if (isId(uid)) return { uid }
  if (isId(gid)) return { gid }
  if (typeof user !== 'string' || !/^\w[\w.-]*$/.test(user))
    throw expected('a user name or a number', given[0])
  // Node has no getpwnam(3). id(1) asks it, wherever the users are kept.
  const stdio = ['ignore', 'pipe', 'ignore'] as const
  try {
    return {
      uid: Number(execFileSync('id', ['-u', user], { stdio: [...stdio] })),
    }
  } catch {
    throw expected('a user of this machine', user)
  }
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0
}

function parseProtocol(value: unknown = 'tcp'): Protocol {
  if (value === 'tcp' || value === 'udp') return value
  throw expected('"tcp" or "udp"', value)
}

// In the one spelling that is compared: ::1, not 0:0::1.
function parseAddress(value: unknown): string {
  if (typeof value !== 'string' || isIP(value) === 0 || value.includes('%'))
    throw expected('an IP address in digits', value)
  const family = isIP(value) === 6 ? 'ipv6' : 'ipv4'
  return new SocketAddress({ address: value, family }).address
}

function parsePorts(value: unknown): [number, number] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(String(value)) ?? []
  const ports: [number, number] = [Number(first), Number(last)]
  if (ports[0] >= 1 && ports[0] <= ports[1] && ports[1] <= 65535) return ports
  throw expected('a port from 1 to 65535, or "FIRST-LAST"', value)
}

function fieldsOf(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw expected('an object', value)
  return { ...value }
}

function list(what: string, value: unknown): unknown[] {
  if (Array.isArray(value)) return value
  throw expected(`${what} as an array`, value)
}

function expected(what: string, got: unknown): Error {
  return new Error(`Expected ${what}, got ${JSON.stringify(got)}`)
}
