#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A connected net.Socket reads without being asked, even without a listener
// for 'data', and so throws descriptors away. The descriptor sent here is the
// only one for one end of a pair: once it is closed, the other end has ended.

import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { connect } from 'node:net'

import { listen } from '../../lib/index.ts'
import { check, hasEnded, pair, temporaryPath, until } from './gotcha.ts'

const path = temporaryPath()
const listener = await listen(path)
const client = connect(path)
await once(client, 'connect')
const { value: server } = await listener[Symbol.asyncIterator]().next()

const [kept, given] = pair()
await server?.sendFds('x', [given])
closeSync(given)
const closed = await until(() => hasEnded(kept))
check({
  claim: 'a net.Socket reads without being asked, and drops descriptors',
  expected: 'the descriptor sent to it is closed',
  observed: `the descriptor sent to it is ${closed ? 'closed' : 'open'}`,
})
client.destroy()
server?.close()
listener.close()
