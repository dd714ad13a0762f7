// Servers that start at the same time, at one path: exactly one gets it, and
// everyone reaches that one. FDPASS_STARTS=1000 tries it as often.

import { once } from 'node:events'
import { lstatSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { t } from 'tap'

import { connect } from '../../../lib/index.ts'
import { bindTo, closeFd, newSocket } from '../../../lib/socket/unix.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { Running, script } from '../../support/processes.ts'

const ROUNDS = Number(process.env.FDPASS_STARTS ?? 20)
const STARTERS = 4
const CLIENTS = 8

// Listens when it is told to, says how that went, and lets go when told.
const STARTER = `
  import { createInterface } from 'node:readline'
  import { listen } from './lib/index.ts'
  let listener
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, path, at] = line.split(' ')
    if (word === 'stop') {
      listener?.close()
      listener = undefined
      console.log('stopped')
      continue
    }
    // All begin in the same instant.
    while (Date.now() < Number(at));
    try {
      listener = await listen(path)
      console.log('listens')
      listener.serve(() => {})
    } catch (error) {
      console.log(error.code)
    }
  }
`

t.test(`${ROUNDS} times ${STARTERS} servers start at once`, async (t) => {
  t.setTimeout(300_000 + ROUNDS * 2000)
  const folder = temporaryFolder(t)
  const starters = Array.from({ length: STARTERS }, () => {
    const command = script('--input-type=module', '-e')
    const running = new Running(t, [...command, STARTER])
    const { stdin, stdout } = running.child
    if (!stdin || !stdout) throw new Error('Expected pipes')
    const lines = createInterface({ input: stdout })
    const order = async (line: string): Promise<string> => {
      const answer = once(lines, 'line')
      stdin.write(`${line}\n`)
      return String((await answer)[0])
    }
    return { running, order }
  })
  // The first order waits until they have started.
  await Promise.all(starters.map(({ order }) => order('stop')))

  let wrong = 0
  for (let round = 0; round < ROUNDS; round++) {
    const path = join(folder, `s${round}`)
    // Every other time a dead server has left its file.
    const stale = round % 2 === 0 ? newSocket() : -1
    if (stale >= 0) {
      bindTo(stale, path)
      closeFd(stale)
    }
    const at = Date.now() + 20
    const answers = await Promise.all(
      starters.map(({ order }) => order(`start ${path} ${at}`)),
    )
    const winners = starters.filter((_, i) => answers[i] === 'listens')
    const refused = answers.filter((answer) => answer === 'EADDRINUSE')
    const pid = winners[0]?.running.pid
    const isOne = winners.length === 1 && refused.length === STARTERS - 1
    let reached = 0
    for (let i = 0; isOne && i < CLIENTS; i++) {
      const client = await connect(path)
      if (client.peerCredentials().pid === pid) reached++
      client.close()
    }
    if (!isOne || reached !== CLIENTS) {
      wrong++
      t.fail(`round ${round}: ${answers.join()}, ${reached} clients reached it`)
    }
    await Promise.all(starters.map(({ order }) => order('stop')))
    if (lstatSync(path, { throwIfNoEntry: false })) t.fail('a file is left')
  }
  t.equal(wrong, 0)
})
