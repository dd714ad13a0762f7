// Mutants that no test here can see, each with the reason. They do not count
// towards the score. A reader can check each: the file has `from`, and with `to`
// in its place everything that anybody can observe is as it was, here. In the
// order of the files.

export type Left = {
  readonly file: string
  /** What stands there. */
  readonly from: string
  /** What the mutant puts in its place. */
  readonly to: string
  /** A part of the line where that begins, if it stands in others too. */
  readonly on?: string
  readonly why: string
}

const TIME = 'the same result, later'
const MEMORY = 'the same result, with more memory'
const ZEROS = 'an empty group would give zeros, as those that are missing'
const ZERO = 'the offset is 0 on every platform'
const ELSEWHERE = 'called on other systems than Linux alone'
const EDGE = "what is not 'level' is by edges"
const LIST = 'called once there is a list'
const BILLION = 'a number comes again after a billion watches'
const UMASK = 'the umask, which it then changes, gives the same mode'
const WATCH = 'with epoll a watch that does not wait yet has nothing to close'

export const left: readonly Left[] = [
  {
    file: 'lib/arrivals.ts',
    from: 'block.bytes.length - taken < size',
    to: 'block.bytes.length - taken <= size',
    why: MEMORY,
  },
  {
    file: 'lib/cmsg.ts',
    from: 'at + pid',
    to: 'at - pid',
    why: ZERO,
  },
  {
    file: 'lib/cmsg.ts',
    from: 'start + pid',
    to: 'start - pid',
    why: ZERO,
  },
  {
    file: 'lib/cmsg.ts',
    from: 'start + cmsg_len',
    to: 'start - cmsg_len',
    why: ZERO,
  },
  {
    file: 'lib/cmsg.ts',
    from: 'Buffer.isBuffer(control)',
    to: 'false',
    why: TIME,
  },
  {
    file: 'lib/cmsg.ts',
    from: 'claimed === available',
    to: 'false',
    why: 'one more step, to the end of the buffer, where the walk ends',
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'data.length === 0',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'count > SURE_TO_FIT',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'count > SURE_TO_FIT',
    to: 'count >= SURE_TO_FIT',
    why: TIME,
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'control.length === 0',
    to: 'false',
    why: TIME,
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'flags === 0 && maxFds === Number.POSITIVE_INFINITY',
    to: 'false',
    why: TIME,
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'fd >= 0',
    to: 'true',
    why: 'closing what is negative closes nothing',
  },
  {
    file: 'lib/conn/checks.ts',
    from: 'others.filter((fd) => fd >= 0)',
    to: 'others',
    why: 'closing what is negative closes nothing',
  },
  {
    file: 'lib/conn/checks.ts',
    from: '{\n    return false\n  }',
    to: '{}',
    why: 'undefined is as good as false where it is asked',
  },
  {
    file: 'lib/conn/conn.ts',
    from: "'edge'",
    to: '""',
    why: EDGE,
  },
  {
    file: 'lib/conn/conn.ts',
    from: 'events & READABLE',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/conn.ts',
    from: 'isStream',
    to: 'true',
    on: 'setOutOfBandInline',
    why: 'a socket of messages has no such bytes',
  },
  {
    file: 'lib/conn/conn.ts',
    from: 'this.#fd < 0',
    to: 'false',
    why: 'what is closed then is -1, which closes nothing',
  },
  {
    file: 'lib/conn/conn.ts',
    from: 'events & WRITABLE',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/conn.ts',
    from: 'error instanceof Error',
    to: 'true',
    why: 'nothing is thrown here but errors',
  },
  {
    file: 'lib/conn/conn.ts',
    from: 'one',
    to: 'false',
    on: 'if (one)',
    why: WATCH,
  },
  {
    file: 'lib/conn/datagram.ts',
    from: "'edge'",
    to: '""',
    why: EDGE,
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'events & READABLE',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'events & WRITABLE',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'one',
    to: 'false',
    on: 'if (one)',
    why: WATCH,
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'fds.length > 0',
    to: 'true',
    why: 'without descriptors the control message brings nothing',
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'fds.length > 0',
    to: 'fds.length >= 0',
    why: 'without descriptors the control message brings nothing',
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'clearTimeout(this.#retry)',
    to: ';',
    why: 'what comes then finds nothing to send',
  },
  {
    file: 'lib/conn/datagram.ts',
    from: 'clearImmediate(this.#nextTurn)',
    to: ';',
    why: 'the next turn finds it closed, and serves nobody',
  },
  {
    file: 'lib/conn/frames.ts',
    from: "'one that has them'",
    to: '""',
    why: 'the text of an error',
  },
  {
    file: 'lib/conn/frames.ts',
    from: 'start < bytes.length',
    to: 'start <= bytes.length',
    why: 'one more round, which finds nothing',
  },
  {
    file: 'lib/conn/listener.ts',
    from: 'this.#servings.delete(serving)',
    to: ';',
    why: MEMORY,
  },
  {
    file: 'lib/conn/listener.ts',
    from: '{\n      this.#servings.delete(serving)\n    }',
    to: '{}',
    why: MEMORY,
  },
  {
    file: 'lib/conn/receiver.ts',
    from: '!this.#line.isEmpty || this.#receivedInTurn >= PER_TURN',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/receiver.ts',
    from: 'messages.length === 0',
    to: 'false',
    why: 'an empty list of messages is as good as none',
  },
  {
    file: 'lib/conn/receiver.ts',
    from: 'clearImmediate(this.#nextTurn)',
    to: ';',
    why: 'the next turn finds the end, and serves nobody',
  },
  {
    file: 'lib/conn/sender.ts',
    from: 'batch.length === 1',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/conn/sender.ts',
    from: 'last < 0',
    to: 'false',
    why: TIME,
  },
  {
    file: 'lib/conn/sender.ts',
    from: 'last < 0',
    to: 'last <= 0',
    why: 'the first message was checked before, so it is never at 0',
  },
  {
    file: 'lib/conn/sender.ts',
    from: 'first === undefined',
    to: 'false',
    why: 'where something was sent there is a first',
  },
  ...['true', 'others.length >= 0'].map((to) => ({
    file: 'lib/conn/stream.ts',
    from: 'others.length > 0',
    to,
    why: TIME,
  })),
  {
    file: 'lib/conn/stream.ts',
    from: "event === 'fds'",
    to: 'true',
    why: TIME,
  },
  ...[
    ['accept', "'accept'", '""'],
    ['accept', "'int'", '""'],
    ['accept', "'pointer'", '""'],
    ['accept', "['int', 'pointer', 'pointer']", '[]'],
    ['dup2', "'dup2'", '""'],
    ['dup2', "'int'", '""'],
    ['dup2', "['int', 'int']", '[]'],
  ].map(([name, from = '', to = '']) => ({
    file: 'lib/socket/calls.ts',
    from,
    to,
    on: `declare('${name}'`,
    why: ELSEWHERE,
  })),
  {
    file: 'lib/socket/memory.ts',
    from: 'size > 0',
    to: 'true',
    why: 'a new file has the size 0 already',
  },
  {
    file: 'lib/ffi/ffi-rs.ts',
    from: "'libc'",
    to: '""',
    why: 'a name of our own, the same wherever it is used',
  },
  {
    file: 'lib/ffi/ffi-rs.ts',
    from: '{\n    return undefined\n  }',
    to: '{}',
    why: 'a function without return gives undefined, too',
  },
  {
    file: 'lib/libc.ts',
    from: '!isMissing',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/libc.ts',
    from: '{\n        isMissing = true\n      }',
    to: '{}',
    why: TIME,
  },
  {
    file: 'lib/libc.ts',
    from: 'true',
    to: 'false',
    on: 'isMissing = ',
    why: TIME,
  },
  {
    file: 'lib/libc.ts',
    from: 'base === undefined',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/libc.ts',
    from: 'bases.set(buffer, base)',
    to: ';',
    why: TIME,
  },
  {
    file: 'lib/libc.ts',
    from: 'isTracing',
    to: 'true',
    why: 'what is noted is printed where calls are traced, and nowhere else',
  },
  {
    file: 'lib/message.ts',
    from: 'data.length >= LARGE',
    to: 'data.length > LARGE',
    why: TIME,
  },
  {
    file: 'lib/message.ts',
    from: 'MSG_CMSG_CLOEXEC !== 0',
    to: 'false',
    why: 'what is close-on-exec is made so again',
  },
  {
    file: 'lib/message.ts',
    from: "'ioctl'",
    to: '""',
    why: 'for macOS, where the call would have to fail',
  },
  {
    file: 'lib/msghdr.ts',
    from: 'at + msghdr.msg_name',
    to: 'at - msghdr.msg_name',
    why: ZERO,
  },
  {
    file: 'lib/msghdr.ts',
    from: 'at + iovec.iov_base',
    to: 'at - iovec.iov_base',
    why: ZERO,
  },
  {
    file: 'lib/msghdr.ts',
    from: 'size === 4',
    to: 'false',
    why: 'the length, which is written next, replaces the upper half',
  },
  {
    file: 'lib/socket/memory.ts',
    from: 'size > 0',
    to: 'size >= 0',
    why: 'a new file has the size 0 already',
  },
  {
    file: 'lib/socket/memory.ts',
    from: 'wanted !== 0',
    to: 'true',
    why: 'no seals are added',
  },
  {
    file: 'lib/socket/options.ts',
    from: 'value.bytes.fill(0)',
    to: ';',
    why: 'the kernel writes all that is read',
  },
  {
    file: 'lib/socket/options.ts',
    from: 'limit === 0',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/socket/sockaddr.ts',
    from: 'sun_family === 1',
    to: 'true',
    why: 'on Linux the family is at 0, and written over it',
  },
  {
    file: 'lib/socket/sockaddr.ts',
    from: "group === ''",
    to: 'false',
    why: ZEROS,
  },
  {
    file: 'lib/socket/sockaddr.ts',
    from: "''",
    to: '"Stryker was here!"',
    on: "split('\\0', 1)",
    why: 'there is a first part always; and an empty group would give zeros',
  },
  {
    file: 'lib/socket/sockaddr.ts',
    from: '[]',
    to: '["Stryker was here"]',
    on: '[before = [], after = []]',
    why: ZEROS,
  },
  ...[
    'true',
    'false',
    'length > room.length / 4',
    'length < room.length / 4',
  ].map((to) => ({
    file: 'lib/stream/stream.ts',
    from: 'length >= room.length / 4',
    to,
    why: MEMORY,
  })),
  {
    file: 'lib/stream/stream.ts',
    from: 'room.length / 4',
    to: 'room.length * 4',
    why: MEMORY,
  },
  {
    file: 'lib/socket/unix.ts',
    from: 'SOCK_CLOEXEC !== 0',
    to: 'false',
    why: 'what is close-on-exec is made so again',
  },
  {
    file: 'lib/socket/unix.ts',
    from: 'accepted < 0',
    to: 'accepted <= 0',
    why: 'for macOS, where 0 would have to be free',
  },
  {
    file: 'lib/socket/unix.ts',
    from: 'isMainThread',
    to: 'false',
    on: 'c.close(fd)',
    why: TIME,
  },
  {
    file: 'lib/stream/node-streams.ts',
    from: "''",
    to: '"Stryker was here!"',
    why: 'no path is used beside a descriptor',
  },
  {
    file: 'lib/stream/node-streams.ts',
    from: '{ readable: true, writable: true }',
    to: '{}',
    why: 'what a Socket is without options',
  },
  {
    file: 'lib/wait/accept.ts',
    from: "'edge'",
    to: '""',
    why: EDGE,
  },
  {
    file: 'lib/wait/empty-read.ts',
    from: 'true',
    to: 'false',
    on: 'allowHalfOpen',
    why: 'the end of file is never read, so Node ends no other side',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'this.#armed = 0',
    to: ';',
    why: 'after end() nobody waits again',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'this.#isDuplicate = false',
    to: ';',
    why: 'after end() nobody waits again',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'false',
    to: 'true',
    on: 'this.#isDuplicate = false',
    why: 'after end() nobody waits again',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'this.#id === 0',
    to: 'false',
    on: 'if (this.#id === 0) return',
    why: 'in tell(): it waits for nothing by then. A test sees that in end()',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'list?.fd',
    to: 'list.fd',
    why: LIST,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: '-1',
    to: '+1',
    on: 'list?.fd',
    why: LIST,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'list?.loop',
    to: 'list.loop',
    why: LIST,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'ready[next++]?.tell',
    to: 'ready[next++].tell',
    why: 'next is a place in it',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'next < ready.length',
    to: 'next <= ready.length',
    on: 'while',
    why: 'nothing stands behind the last',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'lastId === LARGEST_ID',
    to: 'false',
    why: BILLION,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'lastId + 1',
    to: 'lastId - 1',
    why: 'any number will do that no other watch has',
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'watches.has(lastId)',
    to: 'false',
    why: BILLION,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'mustHold === isHeld',
    to: 'false',
    why: TIME,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: 'true',
    to: 'false',
    on: 'isTelling = true',
    why: TIME,
  },
  {
    file: 'lib/wait/epoll.ts',
    from: '!isTelling',
    to: 'true',
    why: TIME,
  },
  {
    file: 'lib/wait/listen-at.ts',
    from: 'fchmod(fd, mode) >= 0',
    to: 'fchmod(fd, mode) > 0',
    why: UMASK,
  },
  {
    file: 'lib/wait/listen-at.ts',
    from: 'fchmod(fd, mode) >= 0',
    to: 'fchmod(fd, mode) < 0',
    why: UMASK,
  },
  {
    file: 'lib/wait/listen-at.ts',
    from: 'isSet && (mode & FOR_OTHERS) === 0',
    to: 'false',
    why: UMASK,
  },
  {
    file: 'lib/wait/listen-at.ts',
    from: 'performance.now() < end',
    to: 'performance.now() <= end',
    why: TIME,
  },
  {
    file: 'lib/wait/listen-at.ts',
    from: 'result === -EAGAIN',
    to: 'true',
    on: "'busy'",
    why: TIME,
  },
  {
    file: 'lib/wait/listen-at.ts',
    from: '{\n    return undefined\n  }',
    to: '{}',
    why: 'undefined is what a function without a return gives',
  },
  {
    file: 'lib/wait/uv-poll.ts',
    from: "{ return: 'void', arguments: ['pointer', 'int32', 'int32'] }",
    to: '{}',
    why: 'the callback reads none of its arguments',
  },
  {
    file: 'lib/wait/uv-poll.ts',
    from: "['pointer', 'int32', 'int32']",
    to: '[]',
    on: "return: 'void'",
    why: 'the callback reads none of its arguments',
  },
  {
    file: 'lib/wait/watch.ts',
    from: "'level'",
    to: '""',
    why: 'it waits once, and the first wait is told of what was there before',
  },
]
