/*
 * The other side of examples/stdout, in C.
 *
 *   stdout client SOCKET    sends its fd 1 beside eight bytes, exits at once
 *   stdout server SOCKET    serves one client: dup2 onto its own fd 1, printf
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(1);
}

int main(int argc, char **argv) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  char bytes[256] = "\0\1\377\n";
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};

  if (argc != 3) return 2;
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strncpy(name.sun_path, argv[2], sizeof name.sun_path - 1);

  if (strcmp(argv[1], "client") == 0) {
    int out = 1;
    if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0) die("connect");
    iov.iov_len = 8;
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof out);
    memcpy(CMSG_DATA(cmsg), &out, sizeof out);
    if (sendmsg(fd, &msg, 0) != 8) die("sendmsg");
    return 0;
  }

  if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) die("bind");
  if (listen(fd, 5) < 0) die("listen");
  fprintf(stderr, "listening\n");
  int conn = accept(fd, NULL, NULL);
  if (recvmsg(conn, &msg, 0) <= 0) die("recvmsg");
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
  if (cmsg == NULL || cmsg->cmsg_len != CMSG_LEN(sizeof(int))) {
    fprintf(stderr, "expected one descriptor\n");
    return 1;
  }
  int out;
  memcpy(&out, CMSG_DATA(cmsg), sizeof out);
  if (dup2(out, 1) < 0) die("dup2");
  printf("printed by C\n");
  return 0;
}
