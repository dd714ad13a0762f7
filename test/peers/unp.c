/*
 * write_fd and read_fd with the contract of Unix Network Programming, over a
 * connected Unix socket: one descriptor, or none, beside any bytes.
 *
 *   unp write SOCKET FILE BYTES    FILE "-" for no descriptor
 *   unp read SOCKET                prints the bytes, then what the descriptor
 *                                  reads, or that its number is -1
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union control {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int))];
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* Bytes sent, -1 for an error. A passed of -1 goes without descriptor. */
static ssize_t write_fd(int fd, void *data, size_t length, int passed) {
  union control control;
  struct iovec iov = {.iov_base = data, .iov_len = length};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

  if (passed >= 0) {
    memset(&control, 0, sizeof control);
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof control.bytes;
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(cmsg), &passed, sizeof passed);
  }
  return sendmsg(fd, &msg, 0);
}

/* Bytes received, 0 for end of file; *passed is -1 if no descriptor came. */
static ssize_t read_fd(int fd, void *data, size_t length, int *passed) {
  union control control;
  struct iovec iov = {.iov_base = data, .iov_len = length};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};

  *passed = -1;
  ssize_t got = recvmsg(fd, &msg, 0);
  if (got <= 0) return got;
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
  if (cmsg != NULL && cmsg->cmsg_len == CMSG_LEN(sizeof(int))) {
    if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
      fprintf(stderr, "expected SCM_RIGHTS\n");
      exit(1);
    }
    memcpy(passed, CMSG_DATA(cmsg), sizeof *passed);
  }
  return got;
}

int main(int argc, char **argv) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  char buffer[4096];
  int passed = -1;

  if (argc < 3) return 2;
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strncpy(name.sun_path, argv[2], sizeof name.sun_path - 1);
  if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0) die("connect");

  if (strcmp(argv[1], "write") == 0 && argc == 5) {
    if (strcmp(argv[3], "-") != 0) {
      passed = open(argv[3], O_RDONLY);
      if (passed < 0) die(argv[3]);
    }
    size_t length = strlen(argv[4]);
    if (write_fd(fd, argv[4], length, passed) != (ssize_t)length)
      die("write_fd");
    return 0;
  }

  ssize_t got = read_fd(fd, buffer, sizeof buffer, &passed);
  if (got < 0) die("read_fd");
  printf("bytes %.*s\n", (int)got, buffer);
  if (passed < 0) {
    printf("fd -1\n");
    return 0;
  }
  got = read(passed, buffer, sizeof buffer);
  printf("fd reads %.*s\n", (int)got, buffer);
  return 0;
}
