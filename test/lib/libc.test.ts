// How C is called, with whatever engine this run has.

import { t } from 'tap'

import { host } from '../../lib/layouts.ts'
import {
  allocate,
  check,
  declare,
  hasFunction,
  NULL,
  systemError,
  toAddress,
} from '../../lib/libc.ts'

t.test('declare() gives what C returns, or -errno', async (t) => {
  // int dup(int fd)
  const dup = declare('dup', 'int', ['int'])
  t.equal(dup(-1), -9, 'EBADF')
  // pid_t getpid(void)
  t.equal(declare('getpid', 'int', [])(), process.pid)
  // int strcmp(const char *one, const char *other)
  const strcmp = declare('strcmp', 'int', ['pointer', 'pointer'])
  const text = allocate(16)
  text.bytes.write('same\0same\0more')
  t.equal(strcmp(text.address, toAddress(text.base + 5)), 0)
  t.not(strcmp(text.address, toAddress(text.base + 10)), 0)
})

t.test('declare() takes any number of arguments', async (t) => {
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
  const getsockopt = declare('getsockopt', 'int', [
    'int',
    'int',
    'int',
    'pointer',
    'pointer',
  ])
  t.equal(getsockopt(-1, 0, 0, NULL, NULL), -9)
  // ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
  const sendmsg = declare('sendmsg', 'size', ['int', 'pointer', 'int'])
  t.equal(sendmsg(-1, NULL, 0), -9)
  // int accept4(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
  const accept4 = declare('accept4', 'int', [
    'int',
    'pointer',
    'pointer',
    'int',
  ])
  t.equal(accept4(-1, NULL, NULL, 0), -9)
  // ssize_t recvfrom(int fd, void *buffer, size_t length, int flags,
  //                  struct sockaddr *addr, socklen_t *addrlen)
  const recvfrom = declare('recvfrom', 'size', [
    'int',
    'pointer',
    'pointer',
    'int',
    'pointer',
    'pointer',
  ])
  t.equal(recvfrom(-1, NULL, NULL, 0, NULL, NULL), -9)
})

t.test('declare() of a missing function throws when called', async (t) => {
  const missing = declare('no_such_function', 'int', ['int'])
  t.throws(() => missing(1), /no_such_function/)
  t.equal(hasFunction('no_such_function'), false)
  t.equal(hasFunction('getpid'), true)
})

t.test('check() throws failures in the shape of Node', async (t) => {
  t.equal(check('dup', 5), 5)
  t.throws(() => check('dup', -9, 'descriptor 7'), {
    code: 'EBADF',
    errno: -9,
    syscall: 'dup',
    message: 'dup EBADF descriptor 7',
  })
})

t.test('systemError() knows the error that libuv does not', async (t) => {
  t.match(systemError('sendmsg', -host.constants.ETOOMANYREFS), {
    code: 'ETOOMANYREFS',
    message: 'sendmsg ETOOMANYREFS',
  })
})
