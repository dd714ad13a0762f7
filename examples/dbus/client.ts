#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// Calls the service over D-Bus: it asks what its own standard input is, seen
// from there, and then gets files of the service's directory, opened there, and
// writes them to standard output.
//
// Partner: service.ts, to be started first. Open read(2) with it.
//
// New here: descriptors in an answer, beside the values that name them.

import type { Message } from 'dbus-native'
import { readableFrom } from '../../lib/index.ts'
import { commandLine, fail, help, messageOf } from '../../lib/script/cli.ts'
import { show } from '../../lib/script/print.ts'
import { printable } from '../../lib/script/printable.ts'
import { busPath, NAME, OBJECT, openBus, takeFds } from './bus.ts'

const USAGE = `Usage: ./examples/dbus/client.ts [NAME...]
Writes files to standard output that ./examples/dbus/service.ts opens.`

const { positionals: names } = commandLine(
  USAGE,
  { options: help, allowPositionals: true },
  [0, Number.POSITIVE_INFINITY],
)

type Answer = { body: unknown[]; fds: number[] }

const bus = await openBus(await busPath()).catch(fail)
try {
  // The value is an index: the first of the descriptors beside it, here fd 0.
  const { body: kind } = await call('Describe', 'h', [0], [0])
  console.log(`fd 0, described by the service: ${printable(`${kind}`)}`)
  if (names.length > 0) await showAll(await call('Open', 'as', [names]))
} catch (error) {
  fail(explain(error))
}
bus.connection.end()

async function showAll({ body: [indices], fds }: Answer): Promise<void> {
  for (const [place, index] of (indices as number[]).entries()) {
    const fd = fds[index]
    if (fd === undefined) throw new Error(`Expected a descriptor ${index}`)
    console.log(`${printable(`${names[place]}`)}, fd ${fd} here:`)
    // The stream owns the descriptor from here on, and closes it.
    await show(readableFrom(fd), process.stdout)
  }
}

// Not awaited as a promise of dbus-native's: that has the values, but not the
// descriptors, which only `this` of a callback leads to.
function call(
  member: string,
  signature: string,
  body: unknown[],
  fds: number[] = [],
): Promise<Answer> {
  const message: Message = { destination: NAME, path: OBJECT, interface: NAME }
  return new Promise((resolve, reject) => {
    bus.invoke(
      { ...message, member, signature, body, fds },
      function (error, ...answer) {
        if (error === null)
          resolve({ body: answer, fds: takeFds(this.message) })
        else reject(error)
      },
    )
  })
}

function explain(error: unknown): string {
  const { dbusName } = error as { dbusName?: string }
  if (dbusName !== 'org.freedesktop.DBus.Error.ServiceUnknown')
    return messageOf(error)
  return 'No service on the bus: start ./examples/dbus/service.ts DIR first'
}
