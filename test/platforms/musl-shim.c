/* What Debian's libstdc++ and libgcc (GCC 12, for glibc), and a Node built with
 * GCC 13, expect of a C library beyond what musl has. Only so that Node starts:
 * nothing in lib/ comes past here. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

char __libc_single_threaded = 0;

struct {
  unsigned v[4];
} __cpu_model;

int __cpu_indicator_init(void) { return 0; }

uint32_t arc4random(void) {
  uint32_t value;
  if (getrandom(&value, sizeof value, 0) != sizeof value) abort();
  return value;
}

size_t __strftime_l(char *text, size_t size, const char *format,
                    const struct tm *time, locale_t locale) {
  return strftime_l(text, size, format, time, locale);
}

/* For unwinding: which loaded object holds an address. */
struct found {
  unsigned long long flags;
  void *start, *end;
  struct link_map *map;
  void *eh_frame;
  unsigned long long pad[7];
};

struct query {
  uintptr_t address;
  struct found *result;
};

static int look(struct dl_phdr_info *info, size_t size, void *data) {
  struct query *query = data;
  uintptr_t start = 0, end = 0;
  void *eh_frame = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = info->dlpi_phdr + i;
    uintptr_t at = info->dlpi_addr + header->p_vaddr;
    if (header->p_type == PT_LOAD && query->address >= at &&
        query->address < at + header->p_memsz) {
      start = at;
      end = at + header->p_memsz;
    }
    if (header->p_type == PT_GNU_EH_FRAME) eh_frame = (void *)at;
  }
  if (!end || !eh_frame) return 0;
  *query->result = (struct found){
      .start = (void *)start, .end = (void *)end, .eh_frame = eh_frame};
  return 1;
}

int _dl_find_object(void *address, struct found *result) {
  struct query query = {(uintptr_t)address, result};
  return dl_iterate_phdr(look, &query) ? 0 : -1;
}

/* Destructors of thread-local objects. */
struct destructor {
  void (*run)(void *);
  void *object;
  struct destructor *next;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void run_all(void *first) {
  for (struct destructor *each = first, *next; each; each = next) {
    next = each->next;
    each->run(each->object);
    free(each);
  }
}

static void make_key(void) { pthread_key_create(&key, run_all); }

int __cxa_thread_atexit_impl(void (*run)(void *), void *object, void *dso) {
  pthread_once(&once, make_key);
  struct destructor *each = malloc(sizeof *each);
  if (!each) return -1;
  *each = (struct destructor){run, object, pthread_getspecific(key)};
  return pthread_setspecific(key, each);
}

/* std::string::_M_replace_cold(char *, size_t, const char *, size_t, size_t) */
void _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE15_M_replace_coldEPcmPKcmm(
    void *self, char *at, size_t old, const char *with, size_t size,
    size_t tail) {
  if (size && size <= old) memmove(at, with, size);
  if (tail && old != size) memmove(at + size, at + old, tail);
  if (size <= old) return;
  if (with + size <= at + old) {
    memmove(at, with, size);
  } else if (with >= at + old) {
    memcpy(at, at + (with - at) + (size - old), size);
  } else {
    size_t left = at + old - with;
    memmove(at, with, left);
    memcpy(at + left, at + size, size - left);
  }
}
