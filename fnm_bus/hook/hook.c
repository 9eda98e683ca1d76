/*
 * The native hook: stores one notification like python_hook.py, which defines the spool
 * and gives the reasons. It starts no other program and needs no file except the spool,
 * so that a call costs little more than the start of a process. It never drains.
 *
 * Status 0: stored and synced. Status 75: not in the spool; one line on stderr and in
 * syslog names the path in the fallback spool, or reports the loss. Nothing is written
 * to stdout.
 *
 * Build: cc -std=c11 -O2 -o hook hook.c, preferably as a static program
 * (musl-gcc -static): the dynamic linker takes as long as the rest of a call.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define MAX_STDIN ((size_t)64 << 20) /* bytes; longer documents are read and refused */
#define STORED 0
#define TRY_LATER 75         /* EX_TEMPFAIL of sysexits.h */
#define TICKS_PER_SECOND 100 /* USER_HZ, the unit of times in /proc */
#define NO_BOOT_ID "00000000000000000000"
#define LOG_TIMEOUT 1       /* seconds, for stderr and for each socket of syslog */
#define SYSLOG "/dev/log"
#define MAX_LINE 3000       /* bytes; below PIPE_BUF, so that a pipe takes all or none */
#define MODE 0640
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define SMALL_FILE (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
#define NEW_FILE (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)

/*
 * The settings are a part of the program, so FastNetMon's path needs no arguments and no
 * configuration file has to be opened. `fnm-bus hook install` finds the block by its
 * first string, which therefore occurs only once, and overwrites the rest. `volatile`:
 * the compiler must not use the values that it sees here.
 */
#define SETTINGS_SIZE 4096
__attribute__((section(".fnmbus_settings"), used))
const volatile char settings_block[SETTINGS_SIZE] =
    "fnm-bus native hook 1\0"
    "SPOOL=/var/spool/fnm-bus\0"
    "FALLBACK=/run/fnm-bus/spool\0"
    "RESERVE_BYTES=8388608\0"
    "RESERVE_INODES=64\0"
    "FALLBACK_FILES=2000\0"
    "FALLBACK_BYTES=67108864\0";

static struct {
    const char *spool, *fallback;
    unsigned long long reserve_bytes, reserve_inodes; /* doubled for status updates */
    unsigned long long fallback_files, fallback_bytes;
} settings;

static char entry_name[128];
static char entry_digit[2]; /* the last digit of the name, which selects the bucket */
static char entry_path[160]; /* below the root of a spool */
static char problem[4 * SETTINGS_SIZE]; /* the error, or both spools' errors */

/* Append to the error; return -1. A cut text is longer than any line of the log. */
__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
    size_t length = strlen(problem);
    va_list values;
    va_start(values, format);
    vsnprintf(problem + length, sizeof problem - length, format, values);
    va_end(values);
    return -1;
}

/* Append errno and a path to the error, as Python shows an OSError; return -1. */
static int fail_at(const char *root, const char *below, const char *name)
{
    return fail("[Errno %d] %s: '%s/%s%s'", errno, strerror(errno), root, below, name);
}

static bool read_number(const char *text, unsigned long long *number)
{
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno;
}

/* Read the settings; return whether they are complete. */
static bool read_settings(void)
{
    static const char *const keys[] = {"SPOOL=",          "FALLBACK=",
                                       "RESERVE_BYTES=",  "RESERVE_INODES=",
                                       "FALLBACK_FILES=", "FALLBACK_BYTES="};
    enum { COUNT = sizeof keys / sizeof *keys };
    static char block[SETTINGS_SIZE + 2]; /* ends with NULs even if the block does not */
    const char *values[COUNT], *text = block;
    for (size_t i = 0; i < SETTINGS_SIZE; i++)
        block[i] = settings_block[i];
    for (size_t i = 0; i < COUNT; i++) {
        text += strlen(text) + 1;
        if (strncmp(text, keys[i], strlen(keys[i])) != 0)
            return false;
        values[i] = text + strlen(keys[i]);
    }
    settings.spool = values[0];
    settings.fallback = values[1];
    return *values[0] == '/' && *values[1] == '/' &&
           read_number(values[2], &settings.reserve_bytes) &&
           read_number(values[3], &settings.reserve_inodes) &&
           read_number(values[4], &settings.fallback_files) &&
           read_number(values[5], &settings.fallback_bytes);
}

static int open_file(int directory, const char *path, int flags)
{
    int fd;
    do
        fd = openat(directory, path, flags, MODE);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static void close_quietly(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
}

/* Read the first bytes of a small file as a string; return their number, or -1. */
static ssize_t read_small_file(const char *path, char *text, size_t size)
{
    int fd = open_file(AT_FDCWD, path, SMALL_FILE);
    if (fd < 0)
        return -1;
    ssize_t count;
    do
        count = read(fd, text, size - 1);
    while (count < 0 && errno == EINTR);
    close_quietly(fd);
    text[count < 0 ? 0 : count] = '\0';
    return count;
}

static long long ticks_of(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (long long)now.tv_sec * TICKS_PER_SECOND +
           now.tv_nsec / (1000000000 / TICKS_PER_SECOND);
}

/* Write the boot's 32 hexadecimal digits; where /proc is hidden, its Unix time. */
static void read_boot_id(char *digits, size_t size)
{
    char text[64];
    size_t length = 0;
    if (read_small_file("/proc/sys/kernel/random/boot_id", text, sizeof text) > 0)
        for (const char *next = text; *next && length < 32; next++)
            if (strchr("0123456789abcdef", *next))
                digits[length++] = *next;
    digits[length] = '\0';
    if (length < 32) {
        long long boot = ticks_of(CLOCK_REALTIME) - ticks_of(CLOCK_BOOTTIME);
        snprintf(digits, size, NO_BOOT_ID "%012lld", boot < 0 ? 0 : boot);
    }
}

/* Return field 22 of /proc/self/stat: the time at which FastNetMon forked the process.
 * Where /proc is hidden, return the current time. */
static long long start_ticks(void)
{
    char stat[1024];
    const char *field = NULL;
    if (read_small_file("/proc/self/stat", stat, sizeof stat) > 0)
        field = strrchr(stat, ')'); /* ends field 2, which may contain blanks */
    for (int number = 2; field && number < 22; number++)
        field = strchr(field + 1, ' ');
    return field ? strtoll(field, NULL, 10) : ticks_of(CLOCK_BOOTTIME);
}

static void make_entry_name(void)
{
    char boot[64];
    unsigned char random[4];
    struct timespec now = {0};
    /* Tells two processes of one pid apart, in containers with a shared spool. */
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != sizeof random) {
        clock_gettime(CLOCK_REALTIME, &now);
        memcpy(random, &now.tv_nsec, sizeof random);
    }
    read_boot_id(boot, sizeof boot);
    snprintf(entry_name, sizeof entry_name, "%s-%012lld-%07d-%02x%02x%02x%02x", boot,
             start_ticks(), (int)getpid(), random[0], random[1], random[2], random[3]);
    entry_digit[0] = entry_name[strlen(entry_name) - 1];
    snprintf(entry_path, sizeof entry_path, "incoming/new/%s/%s", entry_digit, entry_name);
}

/*
 * Read stdin to its end into `document`, which has room for `room` bytes; return the
 * size. The rest of a longer document is read as well: FastNetMon would get SIGPIPE.
 */
static ssize_t read_stdin(char *document, size_t room)
{
    static char rest[65536];
    size_t size = 0;
    for (;;) {
        bool fits = size < room;
        ssize_t count = read(0, fits ? document + size : rest,
                             fits ? room - size : sizeof rest);
        if (count == 0)
            break;
        if (count > 0)
            size += (size_t)count;
        else if (errno == EAGAIN) /* a parent with an event loop set O_NONBLOCK */
            fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK);
        else if (errno != EINTR)
            return fail("stdin: [Errno %d] %s", errno, strerror(errno));
    }
    if (size > MAX_STDIN)
        return fail("stdin holds %zu bytes; the limit is %zu", size, MAX_STDIN);
    if (size > room)
        return fail("stdin holds %zu bytes; there is memory for %zu", size, room);
    return (ssize_t)size;
}

/*
 * Open ROOT/incoming/NAME, or ROOT/incoming/NAME/DIGIT, without following links below
 * the root: root may run the hook, and the spool's owner could plant a link.
 */
static int open_incoming(const char *root, const char *name, const char *digit)
{
    const char *const names[] = {"incoming", name, digit};
    int fd = open_file(AT_FDCWD, root, DIRECTORY);
    for (size_t i = 0; i < 3 && names[i] && fd >= 0; i++) {
        int parent = fd;
        fd = open_file(parent, names[i], DIRECTORY | O_NOFOLLOW);
        close_quietly(parent);
    }
    return fd;
}

static int write_and_sync(int fd, const char *data, size_t size)
{
    if (fchmod(fd, MODE) != 0) /* for the relay's group, independently of the umask */
        return -1;
    while (size > 0) {
        ssize_t count = write(fd, data, size);
        if (count > 0) {
            data += count;
            size -= (size_t)count;
        } else if (count == 0 || errno != EINTR)
            return -1;
    }
    return fsync(fd);
}

/* Write and sync a new file; remove it on an error. */
static int write_new_file(int directory, const char *data, size_t size)
{
    int fd = open_file(directory, entry_name, NEW_FILE);
    if (fd < 0)
        return -1;
    int result = write_and_sync(fd, data, size);
    if (result < 0)
        close_quietly(fd);
    else
        result = close(fd);
    if (result < 0) {
        int error = errno;
        unlinkat(directory, entry_name, 0); /* if it fails, the relay removes it */
        errno = error;
    }
    return result;
}

/* Store and sync an entry in the spool at `root`. After an error of the last step the
 * entry is visible, and may not survive a power loss. */
static int store_entry(const char *root, const char *data, size_t size)
{
    /* Opened first: without a free descriptor no entry becomes visible. */
    int bucket = open_incoming(root, "new", entry_digit);
    if (bucket < 0)
        return fail_at(root, "incoming/new/", entry_digit);
    int result = 0;
    int temporary = open_incoming(root, "tmp", NULL);
    if (temporary < 0)
        result = fail_at(root, "incoming/tmp", "");
    else if (write_new_file(temporary, data, size) < 0)
        result = fail_at(root, "incoming/tmp/", entry_name);
    else if (renameat(temporary, entry_name, bucket, entry_name) < 0) {
        result = fail_at(root, entry_path, "");
        unlinkat(temporary, entry_name, 0);
    } else if (fsync(bucket) < 0)
        result = fail_at(root, entry_path, "");
    if (temporary >= 0)
        close(temporary);
    close(bucket);
    return result;
}

/* Return 0 if the spool's limits allow the document, which is a status update or not. */
static int check_room(const char *root, bool is_status)
{
    char path[SETTINGS_SIZE + 16], full[4097], *word = full;
    snprintf(path, sizeof path, "%s/full", root);
    ssize_t size = read_small_file(path, full, sizeof full);
    /* An unreadable spool is reported below. */
    if (size < 0 && errno != ENOENT && errno != EACCES && errno != EPERM)
        return fail_at(root, "full", "");
    for (; size > 0 && isspace((unsigned char)*word); size--)
        word++;
    while (size > 0 && isspace((unsigned char)word[size - 1]))
        size--;
    bool refuses_all = size == 3 && memcmp(word, "all", 3) == 0;
    if (refuses_all || (size > 0 && is_status))
        return fail("%s: at its limit: %s", root, refuses_all ? "all" : "status");

    struct statvfs disk;
    int temporary = open_incoming(root, "tmp", NULL);
    if (temporary < 0)
        return fail_at(root, "incoming/tmp", "");
    int result = fstatvfs(temporary, &disk);
    close_quietly(temporary);
    if (result < 0)
        return fail_at(root, "incoming/tmp", "");
    unsigned factor = is_status ? 2 : 1;
    unsigned long long block = disk.f_frsize, bytes = disk.f_bavail;
    bytes = block && bytes > ULLONG_MAX / block ? ULLONG_MAX : bytes * block;
    if (bytes / factor < settings.reserve_bytes)
        return fail("%s: only the reserve of %llu bytes is free", root,
                    settings.reserve_bytes);
    /* File systems with dynamic inodes report 0. */
    if (disk.f_files && disk.f_favail / factor < settings.reserve_inodes)
        return fail("%s: only the reserve of %llu inodes is free", root,
                    settings.reserve_inodes);
    return 0;
}

/* Return 0 if the fallback spool has room for a document. */
static int check_fallback_limits(const char *root)
{
    unsigned long long files = 0, bytes = 0;
    for (const char *next = "0123456789abcdef"; *next; next++) {
        char digit[] = {*next, '\0'};
        int fd = open_incoming(root, "new", digit);
        DIR *bucket = fd < 0 ? NULL : fdopendir(fd);
        if (!bucket) {
            int result = fail_at(root, "incoming/new/", digit);
            if (fd >= 0)
                close(fd);
            return result;
        }
        const struct dirent *entry;
        int result = 0;
        while (result == 0 && (errno = 0, entry = readdir(bucket))) {
            struct stat status;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
                bytes += (unsigned long long)status.st_size;
                files++;
                if (files >= settings.fallback_files || bytes >= settings.fallback_bytes)
                    result = fail("%s: full, %llu files or more, %llu bytes or more", root,
                                  files, bytes);
            } else if (errno != ENOENT) /* the relay has published it */
                result = fail_at(root, "incoming/new/", digit);
        }
        if (result == 0 && errno)
            result = fail_at(root, "incoming/new/", digit);
        closedir(bucket);
        if (result < 0)
            return result;
    }
    return 0;
}

/* Send a line to syslog. syslog(3) would wait for a reader that hangs. */
static void send_to_syslog(const char *line)
{
    static const int kinds[] = {SOCK_DGRAM, SOCK_STREAM};
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SYSLOG};
    const struct timeval timeout = {.tv_sec = LOG_TIMEOUT};
    char message[MAX_LINE + 256];
    int length = snprintf(message, sizeof message, "<%d>fnm-bus[%d]: %s",
                          LOG_DAEMON | LOG_ERR, (int)getpid(), line);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int fd = socket(AF_UNIX, kinds[i] | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return;
        /* A NUL ends a message in a stream. */
        size_t size = (size_t)length + (kinds[i] == SOCK_STREAM);
        bool sent =
            !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) &&
            !connect(fd, (const struct sockaddr *)&address, sizeof address) &&
            send(fd, message, size, MSG_NOSIGNAL) >= 0;
        close(fd);
        if (sent)
            return;
    }
}

/* Write one line to stderr and syslog, each within a time limit: FastNetMon waits for
 * this process. Other bytes than printable ASCII are escaped. */
static void log_error(const char *text)
{
    char line[MAX_LINE + 128] = "fnm-bus hook: ";
    size_t length = strlen(line);
    for (; *text && length < MAX_LINE - 4; text++) {
        if (*text > ' ' && *text < 0x7f)
            line[length++] = *text;
        else if (!isspace((unsigned char)*text))
            length += (size_t)snprintf(line + length, 5, "\\x%02x", (unsigned char)*text);
        else if (line[length - 1] != ' ')
            line[length++] = ' ';
    }
    line[length] = '\n';
    struct pollfd standard_error = {.fd = 2, .events = POLLOUT};
    const char *trouble = NULL;
    int ready = poll(&standard_error, 1, 1000 * LOG_TIMEOUT);
    if (ready == 0)
        trouble = "its reader hangs";
    else if (ready < 0 || write(2, line, length + 1) < 0)
        trouble = strerror(errno);
    line[length] = '\0';
    if (trouble)
        snprintf(line + length, sizeof line - length, "; stderr failed: %s", trouble);
    send_to_syslog(line);
}

/* Log the error with a further reason; return the exit status. */
static int report_loss(const char *reason)
{
    static char text[sizeof problem + 64];
    fail("%s", reason);
    snprintf(text, sizeof text, "this notification is lost: %s", problem);
    log_error(text);
    return TRY_LATER;
}

/* Store an entry in the spool, else in the fallback spool; return the exit status. */
static int store_or_fallback(const char *entry, size_t size, bool is_status)
{
    make_entry_name();
    if (check_room(settings.spool, is_status) == 0 &&
        store_entry(settings.spool, entry, size) == 0)
        return STORED;
    size_t length = strlen(problem);
    fail("; fallback: ");
    if (check_fallback_limits(settings.fallback) < 0 ||
        store_entry(settings.fallback, entry, size) < 0)
        return report_loss("");
    problem[length] = '\0';
    fail("; kept in the fallback spool: %s/%s", settings.fallback, entry_path);
    log_error(problem);
    return TRY_LATER;
}

/*
 * Map memory for an entry of any size, with the bytes before the document; return the
 * document's place, and set `room`. Pages that are not used cost nothing. Where the
 * process may not have so much memory, the room is smaller.
 */
static char *map_entry(int count, char **arguments, size_t *room, char **entry)
{
    char begin[32];
    size_t head = (size_t)snprintf(begin, sizeof begin, "fnm-bus 1 %d", count) + 1;
    size_t size = head;
    for (int i = 0; i < count; i++)
        size += strlen(arguments[i]) + 1;
    for (*room = MAX_STDIN; *room >= 4096; *room /= 2) {
        char *next = mmap(NULL, size + *room, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (next == MAP_FAILED)
            continue;
        /* The kernel would clear a whole huge page for a small document. */
        madvise(next, size + *room, MADV_NOHUGEPAGE);
        *entry = next;
        memcpy(next, begin, head);
        next += head;
        for (int i = 0; i < count; i++)
            next = stpcpy(next, arguments[i]) + 1;
        return next;
    }
    *room = 0;
    return NULL;
}

/* Occupy closed standard descriptors, so that no entry is opened as one of them. Reading
 * and writing them still fails: these descriptors only stand for a path. */
static void occupy_standard_descriptors(void)
{
    int fd;
    do
        fd = open_file(AT_FDCWD, "/", O_PATH | O_CLOEXEC);
    while (fd >= 0 && fd <= 2);
    if (fd > 2)
        close(fd);
}

int main(int count, char **arguments)
{
    /* A core dump would store the document outside the spool, for other readers. */
    prctl(PR_SET_DUMPABLE, 0);
    /* A write fails with an error instead. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    occupy_standard_descriptors();

    if (count > 0) { /* the program's own name */
        count--;
        arguments++;
    }
    size_t room;
    char *entry = NULL, *document = map_entry(count, arguments, &room, &entry);
    /* In its text mode FastNetMon Community leaves its own stdin connected for an
     * unban, which may be a terminal. */
    bool has_document = count != 4 || strcmp(arguments[3], "unban") != 0;
    ssize_t size = has_document ? read_stdin(document, room) : 0;
    if (size < 0)
        _exit(report_loss(""));
    if (!document)
        _exit(report_loss("there is memory for no document"));
    if (!read_settings())
        _exit(report_loss("the settings of this hook are damaged: install it again"));
    bool is_status = memmem(document, (size_t)size, "attack_status", 13) != NULL;
    size_t entry_size = (size_t)(document - entry) + (size_t)size;
    _exit(store_or_fallback(entry, entry_size, is_status));
}
