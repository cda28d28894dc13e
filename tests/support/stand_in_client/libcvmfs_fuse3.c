/* The part of the stand-in that speaks to the kernel, by libfuse 3. */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

#define FILE_COUNT 4
static const char *names[FILE_COUNT] = {"hello", "config", "arguments", "environment"};
static char *texts[FILE_COUNT];

static void describe(fuse_ino_t inode, struct stat *status) {
  memset(status, 0, sizeof *status);
  status->st_ino = inode;
  status->st_uid = getuid();
  status->st_gid = getgid();
  status->st_mode = inode == 1 ? S_IFDIR | 0755 : S_IFREG | 0444;
  status->st_nlink = 1;
  if (inode > 1) status->st_size = strlen(texts[inode - 2]);
}

static void do_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *i) {
  struct stat status;
  (void)i;
  describe(inode, &status);
  fuse_reply_attr(request, &status, 1.0);
}

static void do_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
  (void)parent;
  for (int i = 0; i < FILE_COUNT; i++)
    if (strcmp(name, names[i]) == 0) {
      struct fuse_entry_param entry;
      memset(&entry, 0, sizeof entry);
      entry.ino = i + 2;
      entry.attr_timeout = entry.entry_timeout = 1.0;
      describe(entry.ino, &entry.attr);
      fuse_reply_entry(request, &entry);
      return;
    }
  fuse_reply_err(request, ENOENT);
}

static void do_readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                       struct fuse_file_info *info) {
  char buffer[1024];
  size_t used = 0;
  (void)inode, (void)info;
  for (int i = offset; i < FILE_COUNT; i++) {
    struct stat status;
    describe(i + 2, &status);
    size_t step = fuse_add_direntry(request, buffer + used, sizeof buffer - used,
                                    names[i], &status, i + 1);
    if (used + step > sizeof buffer || used + step > size) break;
    used += step;
  }
  fuse_reply_buf(request, buffer, used);
}

static void do_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *info) {
  size_t length = inode > 1 ? strlen(texts[inode - 2]) : 0;
  (void)info;
  if ((size_t)offset >= length) {
    fuse_reply_buf(request, NULL, 0);
    return;
  }
  if (size > length - offset) size = length - offset;
  fuse_reply_buf(request, texts[inode - 2] + offset, size);
}

static void do_getxattr(fuse_req_t request, fuse_ino_t inode, const char *name,
                        size_t size) {
  char pid[16];
  int length = snprintf(pid, sizeof pid, "%d", getpid());
  (void)inode;
  if (strcmp(name, "user.pid") != 0) fuse_reply_err(request, ENODATA);
  else if (size == 0) fuse_reply_xattr(request, length);
  else fuse_reply_buf(request, pid, length);
}

static char *lines(char **words, int count) {
  size_t length = 1;
  for (int i = 0; i != count && words[i]; i++) length += strlen(words[i]) + 1;
  char *text = calloc(1, length);
  for (int i = 0; i != count && words[i]; i++) strcat(strcat(text, words[i]), "\n");
  return text;
}

static char *content(const char *path) {
  char *text = calloc(1, 1 << 20);
  FILE *stream = fopen(path, "r");
  if (stream) {
    if (fread(text, 1, (1 << 20) - 1, stream) == 0) text[0] = 0;
    fclose(stream);
  }
  return text;
}

int serve(const char *repository, const char *mountpoint, const char *config, int argc,
          char **argv, int foreground) {
  char name[] = "cvmfs2", options[] = "-oro,nodev,fsname=cvmfs2";
  char *words[] = {name, options};
  struct fuse_args arguments = FUSE_ARGS_INIT(2, words);
  struct fuse_lowlevel_ops operations = {
      .getattr = do_getattr, .lookup = do_lookup, .readdir = do_readdir,
      .read = do_read, .getxattr = do_getxattr};
  texts[0] = calloc(1, 512);
  snprintf(texts[0], 512, "%s by the stand-in\n", repository);
  texts[1] = content(config);
  texts[2] = lines(argv, argc);
  texts[3] = lines(environ, -1);
  struct fuse_session *session =
      fuse_session_new(&arguments, &operations, sizeof operations, NULL);
  if (!session || fuse_session_mount(session, mountpoint) != 0) return 4;
  fuse_set_signal_handlers(session);
  fuse_daemonize(foreground);
  int failed = fuse_session_loop_mt(session, 0);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return failed ? 6 : 0;
}
