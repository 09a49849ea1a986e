// Faults of files, for a process that this library is preloaded into (LD_PRELOAD).
//
// A call to open, read, write, sync, rename, mkdir or stat that concerns a path below one of the watched folders has a
// site: the Python stack that it comes from, or the C library's for a thread without one, and the call's name. In the mode
// WATCH every call is written to the log as "site call path"; in the mode BY_SITE the first call of one site fails with an
// errno, in the mode BY_NUMBER the n-th call of all, whose site is then written to the log. Python sets the mode by
// `faults_set`; nothing fails before. In the mode BY_LOT one call in `wanted` fails, drawn with `error` as seed, each time
// with another errno. What is synced is not brought to the disk: no power is cut here.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum Mode { OFF, WATCH, BY_SITE, BY_NUMBER, BY_LOT };

static struct {
  enum Mode mode;
  uint64_t wanted;  // site, or number of the call
  int error, failed, log;
  uint64_t calls;
  char roots[2048];  // folders, joined by ':'
} faults = {OFF, 0, 0, 0, -1, 0, ""};
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside;  // what the shim does itself is not looked at

#define REAL(kind, name, ...)                                                                                  \
  static kind (*real)(__VA_ARGS__);                                                                            \
  if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, #name)

void faults_set(int mode, uint64_t wanted, int error, const char *roots, const char *log) {
  inside = 1;
  pthread_mutex_lock(&guard);
  if (faults.log >= 0) close(faults.log);
  faults.log = log && *log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
  snprintf(faults.roots, sizeof faults.roots, "%s", roots);
  faults.wanted = wanted, faults.error = error, faults.failed = 0, faults.calls = 0, faults.mode = (enum Mode)mode;
  pthread_mutex_unlock(&guard);
  inside = 0;
}

int faults_failed(void) { return faults.failed; }
uint64_t faults_calls(void) { return faults.calls; }

static int watched(const char *path) {
  for (const char *root = faults.roots; *root;) {
    const char *end = strchrnul(root, ':');
    size_t n = (size_t)(end - root);
    if (n && !strncmp(path, root, n) && (path[n] == '/' || path[n] == 0)) return 1;
    root = *end ? end + 1 : end;
  }
  return 0;
}

static uint64_t mix(uint64_t hash, const char *text) {
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;  // FNV-1a
  return hash;
}

static uint64_t site_of(const char *call) {
  static void *(*state)(void);
  static const char *(*dump)(int, void *);
  if (!state) *(void **)(&state) = dlsym(RTLD_DEFAULT, "PyGILState_GetThisThreadState");
  if (!dump) *(void **)(&dump) = dlsym(RTLD_DEFAULT, "_Py_DumpTraceback");
  uint64_t hash = mix(14695981039346656037u, call);
  void *thread = state ? state() : 0;
  if (thread && dump) {
    static __thread int memory = -1;
    static __thread char text[1 << 15];
    if (memory < 0) memory = (int)memfd_create("stack", MFD_CLOEXEC);
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    if (ftruncate(memory, 0) || lseek(memory, 0, SEEK_SET)) return hash;
    dump(memory, thread);
    ssize_t n = real(memory, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    char *ours = strstr(text, "faults/sweep.py");  // who called the command is no part of a site
    if (ours) *ours = 0;
    return mix(hash, text);
  }
  void *frames[24];
  int n = backtrace(frames, 24);
  for (int i = 2; i < n; i++) {
    Dl_info of;
    char place[300];
    if (!dladdr(frames[i], &of) || !of.dli_fname) continue;
    snprintf(place, sizeof place, "%s+%lx", of.dli_fname, (unsigned long)((char *)frames[i] - (char *)of.dli_fbase));
    hash = mix(hash, place);
  }
  return hash;
}

static int fails(const char *call, const char *path) {
  if (inside || faults.mode == OFF || !path || !watched(path)) return 0;
  inside = 1;
  int now = 0, kept = errno;
  uint64_t site = faults.mode >= BY_NUMBER || faults.failed ? 0 : site_of(call);
  pthread_mutex_lock(&guard);
  faults.calls++;
  if (!faults.failed && ((faults.mode == BY_SITE && site == faults.wanted) || (faults.mode == BY_NUMBER && faults.calls == faults.wanted)))
    now = faults.failed = 1;
  int error = faults.error;
  if (faults.mode == BY_LOT) {
    static const int some[] = {EIO, ESTALE, EMFILE, ENOMEM, ETIMEDOUT};
    uint64_t drawn = mix(faults.calls * 2654435761u + (uint64_t)faults.error, "lot");
    now = (drawn >> 20) % faults.wanted == 0, faults.failed += now, error = some[drawn % 5];
  }
  if (now && faults.mode == BY_NUMBER) site = site_of(call);
  if (faults.log >= 0 && (now || faults.mode == WATCH)) {
    char line[1400];
    int n = snprintf(line, sizeof line, "%016lx %s %s%s\n", (unsigned long)site, call, path, now ? " FAILED" : "");
    REAL(ssize_t, write, int, const void *, size_t);
    if (n > 0) (void)!real(faults.log, line, (size_t)n);
  }
  pthread_mutex_unlock(&guard);
  inside = 0;
  errno = now ? error : kept;
  return now;
}

static const char *name_of(int descriptor, char *out, size_t size) {
  if (inside || faults.mode == OFF || descriptor < 3) return 0;
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  int kept = errno;
  ssize_t n = readlink(link, out, size - 1);
  errno = kept;
  if (n < 0) return 0;
  out[n] = 0;
  return out;
}

static const char *below(int folder, const char *path, char *out, size_t size) {
  if (path[0] == '/') return path;
  char base[700];
  if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !name_of(folder, base, sizeof base)) return path;
  snprintf(out, size, "%s/%s", base, path);
  return out;
}

#define OPEN(name, ...)                                                                                        \
  mode_t mode = 0;                                                                                             \
  if (flags & (O_CREAT | O_TMPFILE)) {                                                                         \
    va_list more;                                                                                              \
    va_start(more, flags);                                                                                     \
    mode = va_arg(more, mode_t);                                                                               \
    va_end(more);                                                                                              \
  }                                                                                                            \
  char full[1200];
static const char *opening(int flags) { return (flags & O_ACCMODE) == O_RDONLY ? "open" : "create"; }

int open(const char *path, int flags, ...) {
  OPEN(open)
  REAL(int, open, const char *, int, ...);
  return fails(opening(flags), below(AT_FDCWD, path, full, sizeof full)) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  OPEN(open64)
  REAL(int, open64, const char *, int, ...);
  return fails(opening(flags), below(AT_FDCWD, path, full, sizeof full)) ? -1 : real(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
  OPEN(openat)
  REAL(int, openat, int, const char *, int, ...);
  return fails(opening(flags), below(at, path, full, sizeof full)) ? -1 : real(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
  OPEN(openat64)
  REAL(int, openat64, int, const char *, int, ...);
  return fails(opening(flags), below(at, path, full, sizeof full)) ? -1 : real(at, path, flags, mode);
}

#define OF_DESCRIPTOR(kind, name, what, parameters, types, given)                                              \
  kind name parameters {                                                                                       \
    static kind(*real) types;                                                                                  \
    if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, #name);                                                    \
    char path[1024];                                                                                           \
    return fails(what, name_of(descriptor, path, sizeof path)) ? (kind)-1 : real given;                        \
  }
OF_DESCRIPTOR(ssize_t, read, "read", (int descriptor, void *to, size_t n), (int, void *, size_t), (descriptor, to, n))
OF_DESCRIPTOR(ssize_t, pread, "read", (int descriptor, void *to, size_t n, off_t at), (int, void *, size_t, off_t), (descriptor, to, n, at))
OF_DESCRIPTOR(ssize_t, pread64, "read", (int descriptor, void *to, size_t n, off64_t at), (int, void *, size_t, off64_t), (descriptor, to, n, at))
OF_DESCRIPTOR(ssize_t, write, "write", (int descriptor, const void *from, size_t n), (int, const void *, size_t), (descriptor, from, n))
OF_DESCRIPTOR(ssize_t, pwrite, "write", (int descriptor, const void *from, size_t n, off_t at), (int, const void *, size_t, off_t), (descriptor, from, n, at))
OF_DESCRIPTOR(ssize_t, pwrite64, "write", (int descriptor, const void *from, size_t n, off64_t at), (int, const void *, size_t, off64_t), (descriptor, from, n, at))
OF_DESCRIPTOR(int, ftruncate64, "write", (int descriptor, off64_t n), (int, off64_t), (descriptor, n))
OF_DESCRIPTOR(int, fstat, "fstat", (int descriptor, struct stat *out), (int, struct stat *), (descriptor, out))
OF_DESCRIPTOR(int, fstat64, "fstat", (int descriptor, struct stat64 *out), (int, struct stat64 *), (descriptor, out))
OF_DESCRIPTOR(int, flock, "lock", (int descriptor, int how), (int, int), (descriptor, how))

#define OF_SYNC(name)                                                                                          \
  int name(int descriptor) {                                                                                   \
    char path[1024];                                                                                           \
    return fails("sync", name_of(descriptor, path, sizeof path)) ? -1 : 0;                                     \
  }
OF_SYNC(fsync)
OF_SYNC(fdatasync)
OF_SYNC(syncfs)

#define OF_PATH(kind, bad, name, what, parameters, types, at, path, given)                                     \
  kind name parameters {                                                                                       \
    static kind(*real) types;                                                                                  \
    if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, #name);                                                    \
    char full[1200];                                                                                           \
    return fails(what, below(at, path, full, sizeof full)) ? bad : real given;                                 \
  }
#define TEXT const char *
#define STAT struct stat
#define STAT64 struct stat64
OF_PATH(int, -1, rename, "rename", (TEXT from, TEXT to), (TEXT, TEXT), AT_FDCWD, to, (from, to))
OF_PATH(int, -1, mkdir, "mkdir", (TEXT path, mode_t mode), (TEXT, mode_t), AT_FDCWD, path, (path, mode))
OF_PATH(int, -1, unlink, "remove", (TEXT path), (TEXT), AT_FDCWD, path, (path))
OF_PATH(int, -1, unlinkat, "remove", (int at, TEXT path, int flags), (int, TEXT, int), at, path, (at, path, flags))
OF_PATH(int, -1, rmdir, "remove", (TEXT path), (TEXT), AT_FDCWD, path, (path))
OF_PATH(DIR *, 0, opendir, "list", (TEXT path), (TEXT), AT_FDCWD, path, (path))
OF_PATH(int, -1, stat, "stat", (TEXT path, STAT *out), (TEXT, STAT *), AT_FDCWD, path, (path, out))
OF_PATH(int, -1, stat64, "stat", (TEXT path, STAT64 *out), (TEXT, STAT64 *), AT_FDCWD, path, (path, out))
OF_PATH(int, -1, lstat, "stat", (TEXT path, STAT *out), (TEXT, STAT *), AT_FDCWD, path, (path, out))
OF_PATH(int, -1, lstat64, "stat", (TEXT path, STAT64 *out), (TEXT, STAT64 *), AT_FDCWD, path, (path, out))
OF_PATH(int, -1, fstatat, "stat", (int at, TEXT path, STAT *out, int flags), (int, TEXT, STAT *, int), at, path, (at, path, out, flags))
OF_PATH(int, -1, fstatat64, "stat", (int at, TEXT path, STAT64 *out, int flags), (int, TEXT, STAT64 *, int), at, path, (at, path, out, flags))
