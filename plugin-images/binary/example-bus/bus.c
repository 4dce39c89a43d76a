/* The bus in sixty lines of C: connect, say hello, answer calls. The wire is written down in docs/wire.md. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO = 1, CALL = 3, ANSWER = 4, ERROR = 5 };
enum { HEAD = 20, LARGEST = 16 + 255 + 4096 + 1048576 };

struct frame { uint8_t kind, priority, flags; uint32_t id; char name[256]; char *payload; size_t size; };

static void fail(const char *what) { perror(what); exit(1); }

static void exactly(int bus, void *to, size_t size) {
    for (ssize_t got; size; to = (char *)to + got, size -= (size_t)got)
        if ((got = read(bus, to, size)) <= 0) fail("the bus went away");
}

static void say(int bus, uint8_t kind, uint8_t priority, uint32_t id, const char *name, const void *payload, size_t size) {
    uint8_t head[HEAD] = {[4] = kind, [5] = priority}; /* flags, deadline and headers stay 0 */
    uint32_t length = htonl((uint32_t)(HEAD - 4 + strlen(name) + size)), number = htonl(id);
    uint16_t named = htons((uint16_t)strlen(name));
    memcpy(head, &length, 4), memcpy(head + 8, &number, 4), memcpy(head + 16, &named, 2);
    if (write(bus, head, HEAD) != HEAD || write(bus, name, strlen(name)) != (ssize_t)strlen(name) ||
        write(bus, payload, size) != (ssize_t)size) fail("the bus does not take it");
}

/* The payload lies in a buffer that the next frame takes. Headers (who asks, traces) are passed over. */
static struct frame next(int bus) {
    static char body[LARGEST];
    uint8_t head[HEAD];
    uint32_t length, id;
    uint16_t name, headers;
    exactly(bus, head, HEAD);
    memcpy(&length, head, 4), memcpy(&id, head + 8, 4), memcpy(&name, head + 16, 2), memcpy(&headers, head + 18, 2);
    length = ntohl(length) - (HEAD - 4), name = ntohs(name), headers = ntohs(headers);
    if (length > LARGEST || name > 255 || name + headers > length) fail("this is no broker");
    exactly(bus, body, length);
    struct frame frame = {head[4], head[5], head[6], ntohl(id), "", body + name + headers, length - name - headers};
    memcpy(frame.name, body, name);
    return frame;
}

int main(void) {
    struct sockaddr_un door = {.sun_family = AF_UNIX};
    const char *path = getenv("CRUCIBLE_BUS"), hello[] = "{\"wire\":[1],\"methods\":[\"upper\"],\"client\":\"c\"}";
    if (!path) return fputs("no bus: grant capabilities.bus in the manifest\n", stderr), 1;
    strncpy(door.sun_path, path, sizeof door.sun_path - 1);
    int bus = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(bus, (struct sockaddr *)&door, sizeof door)) fail(path);
    say(bus, HELLO, 2, 0, "", hello, strlen(hello));
    for (struct frame frame = next(bus);; frame = next(bus)) {
        if (frame.kind == ERROR && !frame.id) return fprintf(stderr, "%s: %.*s\n", frame.name, (int)frame.size, frame.payload), 1;
        if (frame.kind != CALL) continue; /* WELCOME; a CANCEL comes too late for work this quick */
        if (!strcmp(frame.name, "upper"))
            for (size_t at = 0; at < frame.size; at++)
                if (frame.payload[at] >= 'a' && frame.payload[at] <= 'z') frame.payload[at] -= 'a' - 'A';
        if (!strcmp(frame.name, "upper") || !strcmp(frame.name, "$ping"))
            say(bus, ANSWER, frame.priority, frame.id, "", frame.payload, frame.size);
        else
            say(bus, ERROR, frame.priority, frame.id, "NoSuchMethod", frame.name, strlen(frame.name));
    }
}
