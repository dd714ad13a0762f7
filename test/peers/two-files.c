/*
 * The other side of examples/two-files, in C: two descriptors beside 256 bytes
 * that mean nothing.
 *
 *   two-files client SOCKET FILE1 FILE2    opens, sends, exits at once
 *   two-files server SOCKET                serves one client, prints, exits
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { COUNT = 2, FILLER = 256 };

union control {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(COUNT * sizeof(int))];
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int unix_socket(const char *path, struct sockaddr_un *name) {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  memset(name, 0, sizeof *name);
  name->sun_family = AF_UNIX;
  strncpy(name->sun_path, path, sizeof name->sun_path - 1);
  return fd;
}

static int client(const char *path, char *const *files) {
  struct sockaddr_un name;
  int fd = unix_socket(path, &name);
  int fds[COUNT];
  char filler[FILLER];
  union control control;
  struct iovec iov = {.iov_base = filler, .iov_len = sizeof filler};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};

  for (int i = 0; i < COUNT; i++) {
    fds[i] = open(files[i], O_RDONLY);
    if (fds[i] < 0) die(files[i]);
  }
  if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0) die("connect");

  /* All values that a byte can have, as uninitialised memory would. */
  for (int i = 0; i < FILLER; i++) filler[i] = (char)i;
  memset(&control, 0, sizeof control);
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
  cmsg->cmsg_level = SOL_SOCKET;
  cmsg->cmsg_type = SCM_RIGHTS;
  cmsg->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(cmsg), fds, sizeof fds);
  if (sendmsg(fd, &msg, 0) != FILLER) die("sendmsg");
  return 0;
}

static int server(const char *path) {
  struct sockaddr_un name;
  int fd = unix_socket(path, &name);
  int fds[COUNT];
  char buffer[FILLER];
  union control control;
  struct iovec iov = {.iov_base = buffer, .iov_len = sizeof buffer};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};

  if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) die("bind");
  if (listen(fd, 5) < 0) die("listen");
  fprintf(stderr, "listening\n");
  int conn = accept(fd, NULL, NULL);
  if (conn < 0) die("accept");
  ssize_t got = recvmsg(conn, &msg, 0);
  if (got != FILLER) {
    fprintf(stderr, "expected %d bytes, got %zd\n", FILLER, got);
    return 1;
  }
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
  if (cmsg == NULL || cmsg->cmsg_level != SOL_SOCKET ||
      cmsg->cmsg_type != SCM_RIGHTS ||
      cmsg->cmsg_len != CMSG_LEN(sizeof fds)) {
    fprintf(stderr, "expected %d descriptors\n", COUNT);
    return 1;
  }
  memcpy(fds, CMSG_DATA(cmsg), sizeof fds);
  for (int i = 0; i < COUNT; i++) {
    printf("fd %d:\n", i);
    fflush(stdout);
    ssize_t n;
    while ((n = read(fds[i], buffer, sizeof buffer)) > 0)
      if (write(1, buffer, n) != n) die("write");
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 5 && strcmp(argv[1], "client") == 0)
    return client(argv[2], argv + 3);
  if (argc == 3 && strcmp(argv[1], "server") == 0) return server(argv[2]);
  return 2;
}
