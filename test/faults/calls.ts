// What is injected: the errors that the manual page of each system call names,
// section ERRORS, and those that unix(7) adds. Used by ../faults.ts.
//
// Left out are read, write and the waiting calls: libuv makes them on its own
// eventfd and epoll instance, and aborts the process when they fail, by design.
// So it does for epoll_ctl: that fails for epoll instances of ours alone.

const words = (text: string): readonly string[] => text.split(/\s+/)

export const errnosOf: Readonly<Record<string, readonly string[]>> = {
  socket: words(
    'EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT',
  ),
  socketpair: words('EAFNOSUPPORT EFAULT EMFILE ENFILE EOPNOTSUPP ENOMEM'),
  bind: words(
    'EACCES EADDRINUSE EADDRNOTAVAIL EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ' +
      'ENOENT ENOMEM ENOTDIR ENOTSOCK EROFS',
  ),
  listen: words('EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP'),
  // Not EAGAIN: the kernel says that only where no connection waits, and tells of
  // the next one.
  accept4: words(
    'EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ' +
      'ENOMEM ENOTSOCK EOPNOTSUPP EPERM EPROTO ENETDOWN ENOPROTOOPT ' +
      'EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH ENOSR ESOCKTNOSUPPORT ' +
      'EPROTONOSUPPORT ETIMEDOUT',
  ),
  connect: words(
    'EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ' +
      'ECONNREFUSED EFAULT EINTR EISCONN ENETUNREACH ENOENT ENOTSOCK EPERM ' +
      'EPROTOTYPE ETIMEDOUT',
  ),
  sendmsg: words(
    'EACCES EAGAIN EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN ' +
      'EMSGSIZE ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPERM EPIPE ' +
      'ETOOMANYREFS',
  ),
  sendmmsg: words(
    'EAGAIN EBADF ECONNRESET EFAULT EINTR EINVAL EMSGSIZE ENOBUFS ENOMEM ' +
      'ENOTCONN EPERM EPIPE ETOOMANYREFS',
  ),
  recvmsg: words(
    'EAGAIN EBADF ECONNREFUSED ECONNRESET EFAULT EINTR EINVAL ENOMEM ' +
      'ENOTCONN ENOTSOCK',
  ),
  recvmmsg: words(
    'EAGAIN EBADF ECONNREFUSED ECONNRESET EFAULT EINTR EINVAL ENOMEM ENOTCONN',
  ),
  getsockopt: words('EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK'),
  setsockopt: words('EBADF EDOM EFAULT EINVAL EISCONN ENOMEM ENOPROTOOPT'),
  getsockname: words('EBADF EFAULT EINVAL ENOBUFS ENOTSOCK'),
  shutdown: words('EBADF EINVAL ENOTCONN ENOTSOCK'),
  dup: words('EBADF EMFILE'),
  dup3: words('EBADF EBUSY EINTR EINVAL EMFILE'),
  fcntl: words('EACCES EAGAIN EBADF EINTR EINVAL EPERM'),
  ioctl: words('EBADF EFAULT EINVAL ENOTTY'),
  epoll_create1: words('EINVAL EMFILE ENFILE ENOMEM'),
  epoll_ctl: words('EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM'),
  // A call that strace lets fail is not made at all, and so nothing is closed,
  // as the kernel would have done in spite of the error. What is judged is only
  // that nothing crashes.
  close: words('EIO EINTR ENOSPC EDQUOT'),
}

/**
 * Calls that Node does not make by itself on the way to a script's first line:
 * these can be injected into a program from its start.
 */
export const callsOfScripts: readonly string[] = words(
  'socket bind listen connect sendmsg sendmmsg recvmsg recvmmsg dup dup3',
)

/** Errors of accept4 that say that the socket will never give a connection. */
const lasting = words('EBADF EFAULT EINVAL ENOTSOCK EOPNOTSUPP')

/** Whether a server has to go on after this: see accept(2), "Error handling". */
export function mustOutlive(call: string, errno: string): boolean {
  if (call === 'accept4') return !lasting.includes(errno)
  return !/^(EBADF|EFAULT|EINVAL|ENOTSOCK)$/.test(errno)
}
