/* A stand-in for the original client: its command line, its way of reading the
 * configuration, its exit statuses, and real FUSE by the real libfuse. What it mounts is
 * not a repository, but four files that tell what it was started with.
 *
 * cvmfs2 [-f] -o config=FILE[,...] REPOSITORY MOUNTPOINT
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*serve_fn)(const char *, const char *, const char *, int, char **, int);

static char config[4096], others[4096];

/* As the original does: a shell evaluates the file. */
static char *parameter(const char *name) {
  static char value[4096];
  char line[8192];
  snprintf(line, sizeof line, ". '%s' && printf %%s \"$%s\"", config, name);
  FILE *shell = popen(line, "r");
  size_t length = shell ? fread(value, 1, sizeof value - 1, shell) : 0;
  value[length] = 0;
  if (shell) pclose(shell);
  return value;
}

static void take_options(char *text) {
  for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
    if (strncmp(word, "config=", 7) == 0)
      snprintf(config, sizeof config, "%s", word + 7);
    else
      snprintf(others + strlen(others), sizeof others - strlen(others), ",%s", word);
  }
}

static int prepare_cache(const char *repository) {
  char path[8192], *base = parameter("CVMFS_CACHE_BASE");
  struct stat status;
  if (stat(base, &status) != 0 || access(base, W_OK) != 0) {
    fprintf(stderr, "cannot use cache directory %s\n", base);
    return 9;
  }
  snprintf(path, sizeof path, "%s/lock.%s", base, repository);
  int lock = open(path, O_RDWR | O_CREAT, 0600);
  if (lock < 0) return 9;
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    fprintf(stderr, "workspace already locked (24 - workspace already locked)\n");
    return 24;
  }
  return 0;
}

int main(int argc, char **argv) {
  int foreground = 0, option;
  while ((option = getopt(argc, argv, "fo:")) != -1) {
    if (option == 'f') foreground = 1;
    else if (option == 'o') take_options(optarg);
    else return 2;
  }
  if (argc - optind != 2 || !config[0]) return 2;
  char *repository = argv[optind], *mountpoint = argv[optind + 1];
  int wanted = atoi(parameter("STAND_IN_FAILURE"));
  if (wanted > 0) {
    fprintf(stderr, "told to fail (%d)\n", wanted);
    return wanted;
  }
  if (wanted < 0) kill(getpid(), -wanted);
  int status = prepare_cache(repository);
  if (status) return status;
  printf("CernVM-FS: loading Fuse module... ");
  int is_given = strncmp(mountpoint, "/dev/fd/", 8) == 0;
  const char *name = is_given ? "libcvmfs_fuse3.so" : "libcvmfs_fuse.so";
  void *library = dlopen(name, RTLD_NOW);
  if (!library) library = dlopen("libcvmfs_fuse3.so", RTLD_NOW);
  if (!library) {
    fprintf(stderr, "failed to load cvmfs library: %s\n", dlerror());
    return 7;
  }
  printf("done\n");
  serve_fn serve = (serve_fn)dlsym(library, "serve");
  return serve(repository, mountpoint, config, argc, argv, foreground);
}
