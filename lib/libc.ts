// The C library, as far as descriptor passing needs it. This is the only file
// that knows ffi-rs. Each call returns what C returns, or -errno where C
// returns -1, as the kernel itself does; `systemError` makes an Error of that.
//
// Addresses are plain numbers (48 bits, exact in a double). Memory that C sees
// comes from `allocate` and stays where it is: see there.
//
// Nothing here is variadic in C with a variable argument passed: Apple's arm64
// convention puts those on the stack, where a foreign function interface that
// only knows fixed arguments does not. ioctl(fd, FIOCLEX) and
// fcntl(fd, F_GETFL) have none.

import { getSystemErrorName } from 'node:util'
import { DataType, load, open } from 'ffi-rs'

import { host } from './layouts.ts'

const library = 'libc'

// An empty path is the process itself, which has its libc loaded already.
open({ library, path: '' })

const { I32, I64, U32, U8Array } = DataType
const POINTER = addressType(host.pointerSize)
const SIZE = POINTER

export const libc = {
  // int socket(int domain, int type, int protocol)
  socket: declare('socket', I32, [I32, I32, I32]),
  // int socketpair(int domain, int type, int protocol, int sv[2])
  socketpair: declare('socketpair', I32, [I32, I32, I32, POINTER]),
  // int bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
  bind: declare('bind', I32, [I32, POINTER, U32]),
  // int listen(int fd, int backlog)
  listen: declare('listen', I32, [I32, I32]),
  // int accept(int fd, struct sockaddr *addr, socklen_t *addrlen)
  accept: declare('accept', I32, [I32, POINTER, POINTER]),
  // int accept4(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
  accept4: declare('accept4', I32, [I32, POINTER, POINTER, I32]),
  // int connect(int fd, const struct sockaddr *addr, socklen_t addrlen)
  connect: declare('connect', I32, [I32, POINTER, U32]),
  // int shutdown(int fd, int how)
  shutdown: declare('shutdown', I32, [I32, I32]),
  // int getsockname(int fd, struct sockaddr *addr, socklen_t *addrlen)
  getsockname: declare('getsockname', I32, [I32, POINTER, POINTER]),
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
  getsockopt: declare('getsockopt', I32, [I32, I32, I32, POINTER, POINTER]),
  // int setsockopt(int fd, int level, int name, const void *value,
  //                socklen_t len)
  setsockopt: declare('setsockopt', I32, [I32, I32, I32, POINTER, U32]),
  // int inet_pton(int family, const char *text, void *address)
  inet_pton: declare('inet_pton', I32, [I32, POINTER, POINTER]),
  // ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
  sendmsg: declareRepeatable('sendmsg', SIZE, [I32, POINTER, I32]),
  // ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
  recvmsg: declare('recvmsg', SIZE, [I32, POINTER, I32]),
  // int sendmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags)
  sendmmsg: declareRepeatable('sendmmsg', I32, [I32, POINTER, U32, I32]),
  // int recvmmsg(int fd, struct mmsghdr *msgs, unsigned vlen, int flags,
  //              struct timespec *timeout)
  recvmmsg: declare('recvmmsg', I32, [I32, POINTER, U32, I32, POINTER]),
  // int ioctl(int fd, unsigned long request, ...)
  ioctl: declare('ioctl', I32, [I32, U32]),
  // int fcntl(int fd, int command, ...)
  fcntl: declare('fcntl', I32, [I32, I32]),
  // int dup(int fd)
  dup: declare('dup', I32, [I32]),
  // int dup3(int fd, int newfd, int flags)
  dup3: declare('dup3', I32, [I32, I32, I32]),
  // int epoll_create1(int flags)
  epoll_create1: declare('epoll_create1', I32, [I32]),
  // int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
  epoll_ctl: declare('epoll_ctl', I32, [I32, I32, I32, POINTER]),
  // int epoll_wait(int epfd, struct epoll_event *events, int maxevents,
  //                int timeout)
  epoll_wait: declare('epoll_wait', I32, [I32, POINTER, I32, I32]),
  // int getrlimit(int resource, struct rlimit *limit)
  getrlimit: declare('getrlimit', I32, [I32, POINTER]),
} as const

/**
 * Zeroed memory at a known address. V8 never moves the memory behind a Buffer
 * of its own, but frees it with the Buffer: keep the result for as long as an
 * address into it is in use.
 */
export function allocate(size: number): { bytes: Buffer; address: number } {
  const bytes = Buffer.from(new ArrayBuffer(size))
  // void *memcpy(void *dest, const void *src, size_t n) returns dest, and with
  // n = 0 does nothing else.
  const address = load({
    library,
    funcName: 'memcpy',
    retType: POINTER,
    paramsType: [U8Array, U8Array, SIZE],
    paramsValue: [bytes, bytes, 0],
  })
  return { bytes, address }
}

/**
 * A failed system call in Node's own shape: `code`, negative `errno`,
 * `syscall`, message `sendmsg EPIPE`.
 *
 * @param errno negative, as the calls above return it
 */
export function systemError(
  syscall: string,
  errno: number,
  detail = '',
): NodeJS.ErrnoException {
  const code = nameOf(errno)
  const message = `${syscall} ${code}${detail && ` ${detail}`}`
  return Object.assign(new Error(message), { code, errno, syscall })
}

// libuv, and so Node, has no name for the one error that is ours alone.
function nameOf(errno: number): string {
  if (-errno === host.constants.ETOOMANYREFS) return 'ETOOMANYREFS'
  return getSystemErrorName(errno)
}

/** `result`, unless it is a failure: that is thrown as a `systemError`. */
export function check(syscall: string, result: number, detail = ''): number {
  if (result < 0) throw systemError(syscall, result, detail)
  return result
}

/** How C takes an address, or a size, as a number. */
export function addressType(pointerSize: 4 | 8): typeof I64 | typeof U32 {
  return pointerSize === 8 ? I64 : U32
}

type Call = (...values: number[]) => number

// One parameter object serves all calls of a function, because building it
// costs as much as the call.
function describe(
  funcName: string,
  retType: typeof I32 | typeof I64 | typeof U32,
  paramsType: DataType[],
) {
  const paramsValue: number[] = []
  return { library, funcName, retType, paramsType, paramsValue }
}

// ffi-rs reads errno in the same native call: by a later call Node may have
// overwritten it.
function declare(...signature: Parameters<typeof describe>): Call {
  const parameters = { ...describe(...signature), errno: true as const }
  return (...values) => {
    parameters.paramsValue = values
    const { value, errnoCode } = load(parameters)
    return failed(value) ? -errnoCode : value
  }
}

// To know errno makes a call a fifth dearer, so these do without, and are made
// again where they failed: a send that failed has done nothing. Not for
// recvmsg, which says ECONNRESET just once.
function declareRepeatable(...signature: Parameters<typeof describe>): Call {
  const parameters = describe(...signature)
  const again = declare(...signature)
  return (...values) => {
    parameters.paramsValue = values
    const value = load(parameters)
    return failed(value) ? again(...values) : value
  }
}

// As 32 bits, in which the ssize_t of a 32-bit platform is negative too.
function failed(value: number): boolean {
  return (value | 0) === -1
}
