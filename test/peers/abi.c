/* What lib/ claims about a platform, as the platform's headers have it: a line
 * "name value" for each number. The compiler computes every digit, so that the
 * text stands in the object file already: `make test-headers` reads it there,
 * for systems whose programs cannot run here.
 * cc -o abi abi.c && ./abi prints it, and structs that were built, as hex. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#if __has_include(<sys/epoll.h>)
#include <sys/epoll.h>
#endif
#ifndef __linux__
#include <sys/ucred.h>
#endif

/* 0 stands for a constant that the headers do not have, as in lib/layouts.ts.
 * None of these is 0 where there is one. */
#ifndef SOCK_CLOEXEC
#define SOCK_CLOEXEC 0
#endif
#ifndef SOCK_NONBLOCK
#define SOCK_NONBLOCK 0
#endif
#ifndef SO_PASSCRED
#define SO_PASSCRED 0
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 0
#endif
#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif
#ifndef O_PATH
#define O_PATH 0
#endif

/* Structs that a platform does not have are empty here. Should its headers have
 * them after all, the compiler reports that they are defined twice. */
#ifdef __APPLE__
struct mmsghdr {
  char msg_len[0];
};
#endif
#ifndef __linux__
struct epoll_event {
  char data[0];
};
#endif

#define DIGIT(value, unit) '0' + (unsigned long long)(value) / unit % 10
#define LINE(name, value)                                                  \
  {name,                                                                   \
   {DIGIT(value, 1000000000), DIGIT(value, 100000000),                     \
    DIGIT(value, 10000000), DIGIT(value, 1000000), DIGIT(value, 100000),   \
    DIGIT(value, 10000), DIGIT(value, 1000), DIGIT(value, 100),            \
    DIGIT(value, 10), DIGIT(value, 1)},                                    \
   '\n'},
#define VALUE(name) LINE(#name, name)
#define SIZE(type) LINE(#type ".size", sizeof(struct type))
#define FIELD(type, field) LINE(#type "." #field, offsetof(struct type, field))

/* Ten lengths of a payload: TEN(25) has those from 250 to 259. */
#define TEN(n)                                                             \
  CMSG(n##0) CMSG(n##1) CMSG(n##2) CMSG(n##3) CMSG(n##4)                   \
  CMSG(n##5) CMSG(n##6) CMSG(n##7) CMSG(n##8) CMSG(n##9)
#define CMSG(n)                                                            \
  LINE("cmsgAlign(" #n ")", CMSG_SPACE(n) - CMSG_LEN(0))                   \
  LINE("cmsgLen(" #n ")", CMSG_LEN(n))                                     \
  LINE("cmsgSpace(" #n ")", CMSG_SPACE(n))

static const struct {
  char name[32];
  char value[10];
  char end;
} lines[] = {
  LINE("pointerSize", sizeof(void *))
  SIZE(msghdr)
  FIELD(msghdr, msg_name)
  FIELD(msghdr, msg_namelen)
  FIELD(msghdr, msg_iov)
  FIELD(msghdr, msg_iovlen)
  FIELD(msghdr, msg_control)
  FIELD(msghdr, msg_controllen)
  FIELD(msghdr, msg_flags)
  SIZE(mmsghdr)
  FIELD(mmsghdr, msg_len)
  SIZE(iovec)
  FIELD(iovec, iov_base)
  FIELD(iovec, iov_len)
  SIZE(cmsghdr)
  FIELD(cmsghdr, cmsg_len)
  FIELD(cmsghdr, cmsg_level)
  FIELD(cmsghdr, cmsg_type)
  LINE("cmsghdr.cmsg_data", (char *)CMSG_DATA((struct cmsghdr *)0) - (char *)0)
  SIZE(epoll_event)
  FIELD(epoll_event, data)
  FIELD(sockaddr_un, sun_family)
  FIELD(sockaddr_un, sun_path)
  LINE("sockaddr_un.sun_path_size", sizeof(((struct sockaddr_un *)0)->sun_path))

#ifdef __linux__
  LINE("peercred.level", SOL_SOCKET)
  LINE("peercred.option", SO_PEERCRED)
  LINE("peercred.size", sizeof(struct ucred))
  LINE("peercred.uid", offsetof(struct ucred, uid))
  LINE("peercred.gid", offsetof(struct ucred, gid))
  LINE("peercred.pid.offset", offsetof(struct ucred, pid))
#else
  LINE("peercred.level", SOL_LOCAL)
  LINE("peercred.option", LOCAL_PEERCRED)
  LINE("peercred.size", sizeof(struct xucred))
  LINE("peercred.uid", offsetof(struct xucred, cr_uid))
  LINE("peercred.gid", offsetof(struct xucred, cr_groups[0]))
#ifdef LOCAL_PEERPID
  LINE("peercred.pid.option", LOCAL_PEERPID)
#else
  LINE("peercred.pid.offset", offsetof(struct xucred, cr_pid))
#endif
#endif

  VALUE(AF_UNIX)
  VALUE(SOCK_STREAM)
  VALUE(SOCK_CLOEXEC)
  VALUE(SOCK_NONBLOCK)
  VALUE(SOL_SOCKET)
  VALUE(SO_LINGER)
  VALUE(SO_ACCEPTCONN)
  VALUE(SO_SNDBUF)
  VALUE(SO_PASSCRED)
  VALUE(SO_TYPE)
  VALUE(SCM_RIGHTS)
  VALUE(SCM_PIDFD)
  VALUE(MSG_CTRUNC)
  VALUE(MSG_TRUNC)
  VALUE(MSG_DONTWAIT)
  VALUE(MSG_NOSIGNAL)
  VALUE(MSG_CMSG_CLOEXEC)
  VALUE(FIOCLEX)
  VALUE(FIONBIO)
  VALUE(F_GETFL)
  VALUE(RLIMIT_NOFILE)
  VALUE(ETOOMANYREFS)

  VALUE(AF_INET)
  VALUE(AF_INET6)
  VALUE(SO_REUSEADDR)
  SIZE(sockaddr_in)
  FIELD(sockaddr_in, sin_family)
  FIELD(sockaddr_in, sin_port)
  FIELD(sockaddr_in, sin_addr)
  SIZE(sockaddr_in6)
  FIELD(sockaddr_in6, sin6_family)
  FIELD(sockaddr_in6, sin6_port)
  FIELD(sockaddr_in6, sin6_addr)

  VALUE(SOCK_DGRAM)
  VALUE(SOCK_SEQPACKET)
  VALUE(SHUT_WR)
  VALUE(F_GETFD)
  VALUE(F_SETFD)
  VALUE(FD_CLOEXEC)
  VALUE(POLLOUT)
  VALUE(LOCK_EX)
  VALUE(LOCK_NB)
  SIZE(linger)
  /* musl's own has the bit of O_PATH in it. */
  LINE("O_ACCMODE", O_ACCMODE & ~O_PATH)
#ifdef __linux__
  VALUE(O_PATH)
  VALUE(O_CLOEXEC)
  LINE("credentials.type", SCM_CREDENTIALS)
  LINE("credentials.size", sizeof(struct ucred))
  LINE("credentials.pid", offsetof(struct ucred, pid))
  LINE("credentials.uid", offsetof(struct ucred, uid))
  LINE("credentials.gid", offsetof(struct ucred, gid))
  VALUE(F_DUPFD_CLOEXEC)
  VALUE(F_ADD_SEALS)
  VALUE(MFD_CLOEXEC)
  VALUE(MFD_ALLOW_SEALING)
  VALUE(POLLRDHUP)
  VALUE(TIOCGPTN)
  VALUE(FIONREAD)
  VALUE(SO_OOBINLINE)
#if __SIZEOF_POINTER__ == 8
  VALUE(SO_RCVTIMEO)
#endif
  VALUE(EPOLL_CLOEXEC)
  VALUE(EPOLLIN)
  VALUE(EPOLLOUT)
  VALUE(EPOLLERR)
  VALUE(EPOLLHUP)
  VALUE(EPOLLRDHUP)
  VALUE(EPOLLET)
  VALUE(EPOLLONESHOT)
  VALUE(EPOLL_CTL_ADD)
  VALUE(EPOLL_CTL_DEL)
  VALUE(EPOLL_CTL_MOD)
#endif

  TEN() TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9)
  TEN(10) TEN(11) TEN(12) TEN(13) TEN(14) TEN(15) TEN(16) TEN(17) TEN(18)
  TEN(19) TEN(20) TEN(21) TEN(22) TEN(23) TEN(24) TEN(25)
};

static void hex(const char *name, const void *bytes, size_t size) {
  printf("%s ", name);
  for (size_t i = 0; i < size; i++) printf("%02x", ((const unsigned char *)bytes)[i]);
  printf("\n");
}

int main(void) {
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    printf("%s %.10s\n", lines[i].name, lines[i].value);

  int fds[3] = {5, 6, 7};
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fds)];
  memset(control, 0, sizeof control);
  struct msghdr msg = {0};
  msg.msg_control = control;
  msg.msg_controllen = sizeof control;
  struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(header), fds, sizeof fds);
  hex("rights", control, sizeof control);

  struct iovec iov = {(void *)0x11223344, 100};
  memset(&msg, 0, sizeof msg);
  msg.msg_iov = (void *)0x12345678;
  msg.msg_iovlen = 1;
  msg.msg_control = (void *)0x55667788;
  msg.msg_controllen = 24;
  hex("msghdr", &msg, sizeof msg);
  hex("iovec", &iov, sizeof iov);
  return 0;
}
