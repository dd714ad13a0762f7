// listenFds(): what a service asks at its start to learn which sockets an
// activator has opened for it, as sd_listen_fds_with_names does in C. Used by
// service.ts; the other half of the contract is activate.ts. Open
// sd_listen_fds(3) beside it.
//
// There are three variables: LISTEN_PID, the process that is meant; LISTEN_FDS,
// how many sockets there are, from descriptor 3 on; LISTEN_FDNAMES, their
// names. They are only text, so it is checked whether this process is meant,
// and whether the descriptors are sockets.

import { describeFd, setCloseOnExec } from '../../lib/index.ts'
import { codeOf } from '../../lib/script/cli.ts'

export type ListenFd = { readonly fd: number; readonly name: string }

/** SD_LISTEN_FDS_START: 0, 1 and 2 are the standard streams. */
const FIRST = 3

/**
 * What the variables say if they are meant for another process, else ''. To be
 * asked before listenFds(), after which they are gone.
 */
export function otherAddressee(env: NodeJS.ProcessEnv = process.env): string {
  const { LISTEN_PID = '', LISTEN_FDS } = env
  const isOther = LISTEN_PID !== '' && Number(LISTEN_PID) !== process.pid
  if (!isOther || LISTEN_FDS === undefined) return ''
  return `LISTEN_PID=${LISTEN_PID} is another process than this, ${process.pid}`
}

/**
 * The sockets passed to this process, none if there are none for it. The
 * caller owns the descriptors, which are close-on-exec. The variables are gone
 * afterwards, even if this throws, so that no child takes them for its own; a
 * second call finds nothing.
 *
 * @throws Error if the variables contradict each other or the descriptors.
 * Nothing is taken over then, and nothing closed
 */
export function listenFds(env: NodeJS.ProcessEnv = process.env): ListenFd[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env
  delete env.LISTEN_PID
  delete env.LISTEN_PIDFDID // recent systemd's: which pid 7, should pids repeat
  delete env.LISTEN_FDS
  delete env.LISTEN_FDNAMES
  if (LISTEN_PID === undefined || LISTEN_FDS === undefined) return []

  // The environment is inherited, the descriptors may not be: these variables
  // may be about the descriptors of an ancestor.
  if (positive('LISTEN_PID', LISTEN_PID) !== process.pid) return []

  const count = positive('LISTEN_FDS', LISTEN_FDS)
  const names = LISTEN_FDNAMES?.split(':')
  if (names && names.length !== count) {
    throw new Error(
      `Expected as many names as sockets, ${count}, got ${names.length}: ` +
        `LISTEN_FDNAMES=${LISTEN_FDNAMES}`,
    )
  }

  // All are checked before any is touched. In a Node process that was passed
  // nothing, descriptor 3 is open all the same: it is the event loop's own
  // epoll or kqueue, and serving it, or closing it, breaks the runtime.
  const found: ListenFd[] = []
  for (let fd = FIRST; fd < FIRST + count; fd++) {
    checkSocket(fd, count)
    found.push({ fd, name: names?.[fd - FIRST] ?? 'unknown' })
  }
  for (const { fd } of found) setCloseOnExec(fd)
  return found
}

function checkSocket(fd: number, count: number): void {
  const claim = `LISTEN_FDS=${count}: expected a socket as descriptor ${fd}`
  try {
    const { kind } = describeFd(fd)
    if (kind !== 'socket') throw new Error(`${claim}, got: ${kind}`)
  } catch (error) {
    if (codeOf(error) === 'EBADF') throw new Error(`${claim}, it is not open`)
    throw error
  }
}

function positive(name: string, text: string): number {
  if (!/^[1-9]\d{0,9}$/.test(text))
    throw new Error(`Expected ${name} as a number from 1, got '${text}'`)
  return Number(text)
}
