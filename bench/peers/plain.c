// The yardstick: plain sendmsg(2) and recvmsg(2) on blocking sockets, one call
// a message. Every row of the table is compared with it.
//
//     plain ROW timer     fd 3 is one end of a socketpair; for each COUNT on
//                         stdin does ROW so often, prints "NANOSECONDS UNITS"
//     plain ROW other     the second process, on the other end, as fd 3
//
// Closing what was received is not timed. So the timer keeps it, does COUNT in
// portions that its descriptor table has room for, and closes after each; and
// the second process answers before it closes.
//
// Rows of one process have the other end as fd 4. `connect` and `idle` get a
// path in place of the pair. UNITS are counted where they arrive: descriptors,
// bytes, wake-ups or connections.

#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FULL = 252, LARGE = 65536, KEPT = 4000 };

static int null_fd;           // what everybody passes: /dev/null
static char data[LARGE];
static int fds[KEPT];         // received, and not closed yet
static int kept;
static const char *path;

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void send_fds(int sock, size_t length, int count) {
  union {
    struct cmsghdr aligned;
    char bytes[CMSG_SPACE(FULL * sizeof(int))];
  } control;
  struct iovec iov = {.iov_base = data, .iov_len = length};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  if (count > 0) {
    msg.msg_control = &control;
    msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (int i = 0; i < count; i++)
      ((int *)CMSG_DATA(cmsg))[i] = null_fd;
  }
  ssize_t sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
  if (sent != (ssize_t)length) err(1, "sendmsg: %zd of %zu", sent, length);
}

// Returns how many descriptors came, -1 at end of file; *length is the bytes.
static int recv_fds(int sock, size_t *length) {
  union {
    struct cmsghdr aligned;
    char bytes[CMSG_SPACE(FULL * sizeof(int))];
  } control;
  struct iovec iov = {.iov_base = data, .iov_len = *length};
  struct msghdr msg = {
      .msg_iov = &iov,
      .msg_iovlen = 1,
      .msg_control = &control,
      .msg_controllen = sizeof control,
  };
  ssize_t received = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
  if (received < 0) err(1, "recvmsg");
  if (received == 0) return -1;
  if (msg.msg_flags & MSG_CTRUNC) errx(1, "control message truncated");
  *length = received;
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
  if (cmsg == NULL || cmsg->cmsg_type != SCM_RIGHTS) return 0;
  int count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  if (kept + count > KEPT) errx(1, "more than %d descriptors to keep", KEPT);
  memcpy(fds + kept, CMSG_DATA(cmsg), count * sizeof(int));
  kept += count;
  return count;
}

static void close_kept(void) {
  while (kept > 0) close(fds[--kept]);
}

// What the timer asks of the other process: so many, as four bytes.
static void ask(unsigned count) {
  if (write(3, &count, sizeof count) != sizeof count) err(1, "write");
}

static unsigned asked(void) {
  unsigned count;
  ssize_t received = read(3, &count, sizeof count);
  if (received == 0) exit(0);
  if (received != sizeof count) err(1, "read");
  return count;
}

static void one_at_a_time(long count, int descriptors, long *units) {
  for (long i = 0; i < count; i++) {
    size_t length = 1;
    send_fds(3, 1, descriptors);
    *units += recv_fds(4, &length);
  }
}

// Messages of `size` bytes with a descriptor each come from the other process.
static void take_messages(long count, size_t size, long *units) {
  long bytes = 0, descriptors = 0;
  ask(count);
  while (bytes < count * (long)size) {
    size_t length = size;
    descriptors += recv_fds(3, &length);
    bytes += length;
  }
  *units += size == 1 ? descriptors : bytes;
  if (descriptors != count) errx(1, "%ld descriptors came", descriptors);
}

static void give_messages(size_t size, int with) {
  for (;;) {
    for (unsigned left = asked(); left > 0; left--) send_fds(3, size, with);
  }
}

static void take_bytes(long count, long *units) {
  long end = *units + count * LARGE;
  ask(count);
  while (*units < end) {
    ssize_t length = read(3, data, LARGE);
    if (length <= 0) err(1, "read");
    *units += length;
  }
}

static void ping(long count, long *units) {
  for (long i = 0; i < count; i++) {
    size_t length = 1;
    send_fds(3, 1, 1);
    *units += 1 + recv_fds(3, &length);
  }
}

static void pong(void) {
  for (size_t length = 1;;) {
    if (recv_fds(3, &length) < 0) exit(0);
    send_fds(3, 1, 1);
    close_kept();
  }
}

static void wake_up(long count, long *units) {
  for (long i = 0; i < count; i++) {
    struct pollfd waiting = {.fd = 3, .events = POLLIN};
    if (write(4, data, 1) != 1) err(1, "write");
    if (poll(&waiting, 1, -1) != 1) err(1, "poll");
    *units += read(3, data, 1);
  }
}

static struct sockaddr_un address(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof name.sun_path) errx(1, "path too long");
  strcpy(name.sun_path, path);
  return name;
}

static void connect_close(long count, long *units) {
  struct sockaddr_un name = address();
  for (long i = 0; i < count; i++) {
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(sock, (struct sockaddr *)&name, sizeof name) < 0)
      err(1, "connect");
    send_fds(sock, 1, 1);
    *units += read(sock, data, 1);
    close(sock);
  }
}

static int listen_ready(void) {
  struct sockaddr_un name = address();
  int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(sock, (struct sockaddr *)&name, sizeof name) < 0) err(1, "bind");
  if (listen(sock, 511) < 0) err(1, "listen");
  puts("ready");
  return sock;
}

static void accept_answer(void) {
  for (int listener = listen_ready();;) {
    size_t length = 1;
    int sock = accept(listener, NULL, NULL);
    if (sock < 0) err(1, "accept");
    recv_fds(sock, &length);
    if (write(sock, data, 1) != 1) err(1, "write");
    close_kept();
    close(sock);
  }
}

// Holds `count` connections, all of them polled, as a server would.
static void hold(int count) {
  struct pollfd *waiting = calloc(count, sizeof *waiting);
  int listener = listen_ready();
  for (int i = 0; i < count; i++) {
    waiting[i].events = POLLIN;
    waiting[i].fd = accept(listener, NULL, NULL);
  }
  puts("held");
  poll(waiting, count, -1);
}

static void run(const char *row, long count, long *units) {
  if (!strcmp(row, "one-at-a-time")) one_at_a_time(count, 1, units);
  else if (!strcmp(row, "in-flight")) take_messages(count, 1, units);
  else if (!strcmp(row, "full")) one_at_a_time(count, FULL, units);
  else if (!strcmp(row, "ping-pong")) ping(count, units);
  else if (!strcmp(row, "stream")) take_messages(count, LARGE, units);
  else if (!strcmp(row, "bytes")) take_bytes(count, units);
  else if (!strcmp(row, "wake-up")) wake_up(count, units);
  else if (!strcmp(row, "connect")) connect_close(count, units);
  else errx(2, "unknown row %s", row);
}

static void other(const char *row, const char *count) {
  if (!strcmp(row, "in-flight")) give_messages(1, 1);
  if (!strcmp(row, "ping-pong")) pong();
  if (!strcmp(row, "stream")) give_messages(LARGE, 1);
  if (!strcmp(row, "bytes")) give_messages(LARGE, 0);
  if (!strcmp(row, "connect")) accept_answer();
  if (!strcmp(row, "idle")) hold(atoi(count));
  errx(2, "unknown row %s", row);
}

int main(int argc, char **argv) {
  if (argc < 3) errx(2, "usage: plain ROW timer|other [PATH [COUNT]]");
  path = argc > 3 ? argv[3] : "";
  null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int fd = 3; fd <= 4; fd++)
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);

  if (!strcmp(argv[2], "other")) other(argv[1], argc > 4 ? argv[4] : "");
  long portion = strcmp(argv[1], "full") ? KEPT : KEPT / FULL;
  char line[32];
  while (fgets(line, sizeof line, stdin)) {
    long units = 0, time = 0;
    for (long left = atol(line); left > 0; left -= portion) {
      long start = now();
      run(argv[1], left < portion ? left : portion, &units);
      time += now() - start;
      close_kept();
    }
    printf("%ld %ld\n", time, units);
  }
}
