// The functions of C for sockets and descriptors, each declared once, with its
// prototype. Those of the lesson, sendmsg(2), recvmsg(2) and ioctl(2):
// lib/message.ts.
// Read next: lib/socket/pool-calls.ts.

import { allocate, declare } from '../libc.ts'

// int socket(int domain, int type, int protocol)
export const socket = declare('socket', 'int', ['int', 'int', 'int'])

// int socketpair(int domain, int type, int protocol, int sv[2])
export const socketpair = declare('socketpair', 'int', [
  'int',
  'int',
  'int',
  'pointer',
])

// int bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
export const bind = declare('bind', 'int', ['int', 'pointer', 'uint'])

// int listen(int fd, int backlog)
export const listen = declare('listen', 'int', ['int', 'int'])

// int connect(int fd, const struct sockaddr *addr, socklen_t addrlen)
export const connect = declare('connect', 'int', ['int', 'pointer', 'uint'])

// int accept(int fd, struct sockaddr *addr, socklen_t *addrlen)
export const accept = declare('accept', 'int', ['int', 'pointer', 'pointer'])

// int accept4(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
export const accept4 = declare('accept4', 'int', [
  'int',
  'pointer',
  'pointer',
  'int',
])

// int dup2(int fd, int newfd)
export const dup2 = declare('dup2', 'int', ['int', 'int'])

// int dup3(int fd, int newfd, int flags)
export const dup3 = declare('dup3', 'int', ['int', 'int', 'int'])

// int shutdown(int fd, int how)
export const shutdown = declare('shutdown', 'int', ['int', 'int'])

// int getsockname(int fd, struct sockaddr *addr, socklen_t *addrlen)
export const getsockname = declare('getsockname', 'int', [
  'int',
  'pointer',
  'pointer',
])

// int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
export const getsockopt = declare('getsockopt', 'int', [
  'int',
  'int',
  'int',
  'pointer',
  'pointer',
])

// int setsockopt(int fd, int level, int name, const void *value,
//                socklen_t len)
export const setsockopt = declare('setsockopt', 'int', [
  'int',
  'int',
  'int',
  'pointer',
  'uint',
])

// int close(int fd)
export const close = declare('close', 'int', ['int'])

// int dup(int fd)
export const dup = declare('dup', 'int', ['int'])

// int fcntl(int fd, int command, int argument)
export const fcntl = declare('fcntl', 'int', ['int', 'int', 'int'])

// int poll(struct pollfd *fds, nfds_t nfds, int timeout)
export const poll = declare('poll', 'int', ['pointer', 'uint', 'int'])

export const O_CLOEXEC = 0o2000000 // Linux, <asm-generic/fcntl.h>

/**
 * Memory for what goes in or comes out by address, an option or a name, during
 * one call; and for its length.
 */
export const value = allocate(128)
export const valueLength = allocate(4)
