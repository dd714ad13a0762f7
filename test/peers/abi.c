/* Prints what lib/layouts.ts and lib/cmsg.ts claim about this machine, as the
 * headers have it: one "name value" a line, and built structs as hex.
 * cc -o abi abi.c && ./abi */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef SCM_PIDFD
#define SCM_PIDFD 4 /* younger than some headers */
#endif

#define VALUE(name) printf("%s %ld\n", #name, (long)(name))
#define FIELD(type, field) \
  printf("%s.%s %zu\n", #type, #field, offsetof(struct type, field))
#define SIZE(type) printf("%s.size %zu\n", #type, sizeof(struct type))

static void hex(const char *name, const void *bytes, size_t size) {
  printf("%s ", name);
  for (size_t i = 0; i < size; i++) printf("%02x", ((const unsigned char *)bytes)[i]);
  printf("\n");
}

int main(void) {
  printf("pointerSize %zu\n", sizeof(void *));
  SIZE(msghdr);
  FIELD(msghdr, msg_iov);
  FIELD(msghdr, msg_iovlen);
  FIELD(msghdr, msg_control);
  FIELD(msghdr, msg_controllen);
  FIELD(msghdr, msg_flags);
  SIZE(mmsghdr);
  FIELD(mmsghdr, msg_len);
  SIZE(iovec);
  FIELD(iovec, iov_base);
  FIELD(iovec, iov_len);
  SIZE(cmsghdr);
  FIELD(cmsghdr, cmsg_len);
  FIELD(cmsghdr, cmsg_level);
  FIELD(cmsghdr, cmsg_type);
  printf("cmsghdr.cmsg_data %zu\n", (size_t)CMSG_LEN(0));
  FIELD(sockaddr_un, sun_path);
  printf("sockaddr_un.sun_path_size %zu\n", sizeof(((struct sockaddr_un *)0)->sun_path));
  SIZE(ucred);
  FIELD(ucred, pid);
  FIELD(ucred, uid);
  FIELD(ucred, gid);
  VALUE(SO_PEERCRED);
  VALUE(AF_UNIX);
  VALUE(SOCK_STREAM);
  VALUE(SOCK_CLOEXEC);
  VALUE(SOCK_NONBLOCK);
  VALUE(SOL_SOCKET);
  VALUE(SO_LINGER);
  VALUE(SO_ACCEPTCONN);
  VALUE(FIONBIO);
  VALUE(SO_TYPE);
  VALUE(SCM_RIGHTS);
  VALUE(SCM_PIDFD);
  VALUE(MSG_CTRUNC);
  VALUE(MSG_TRUNC);
  VALUE(MSG_DONTWAIT);
  VALUE(MSG_NOSIGNAL);
  VALUE(MSG_CMSG_CLOEXEC);
  VALUE(FIOCLEX);
  VALUE(F_GETFL);
  VALUE(RLIMIT_NOFILE);
  VALUE(ETOOMANYREFS);
  VALUE(O_ACCMODE);
  VALUE(SHUT_WR);

  for (int n = 0; n <= 256; n++) {
    printf("cmsgAlign(%d) %zu\n", n, (size_t)(CMSG_SPACE(n) - CMSG_LEN(0)));
    printf("cmsgLen(%d) %zu\n", n, (size_t)CMSG_LEN(n));
    printf("cmsgSpace(%d) %zu\n", n, (size_t)CMSG_SPACE(n));
  }

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
