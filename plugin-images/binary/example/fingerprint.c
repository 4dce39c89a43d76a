/* Prints the 64-bit FNV-1a fingerprint of every file of a folder, again and again, until it is asked to stop. */
#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* Returns 0 and the fingerprint, or -1 when the file cannot be read. */
static int fingerprint(const char *path, uint64_t *found)
{
    unsigned char block[4096];
    size_t count;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    FILE *file = fopen(path, "rb");

    if (file == NULL)
        return -1;
    while ((count = fread(block, 1, sizeof block, file)) > 0)
        for (size_t at = 0; at < count; at++)
            hash = (hash ^ block[at]) * UINT64_C(0x100000001b3);
    fclose(file);
    *found = hash;
    return 0;
}

static void report(const char *folder)
{
    DIR *entries = opendir(folder);
    struct dirent *entry;
    char path[4096];
    uint64_t hash;

    if (entries == NULL) {
        perror(folder);
        return;
    }
    while ((entry = readdir(entries)) != NULL) {
        if (entry->d_type != DT_REG)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (fingerprint(path, &hash) == 0)
            printf("%016" PRIx64 "  %s\n", hash, path);
    }
    closedir(entries);
}

int main(int argc, char **argv)
{
    const char *given = getenv("INTERVAL");
    struct timespec interval = {.tv_sec = given != NULL && atoi(given) > 0 ? atoi(given) : 2};
    struct sigaction action = {.sa_handler = stop};

    sigaction(SIGTERM, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (!stopped) {
        report(argc > 1 ? argv[1] : ".");
        nanosleep(&interval, NULL); /* ends early when a signal arrives */
    }
    puts("asked to stop: goodbye");
    return 0;
}
